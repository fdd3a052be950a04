"""Losses of the user's: what they see, and how a training records them."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from tastemaker.core.errors import TastemakerError
from tastemaker.losses import DenoisingErrors, dpo
from tastemaker.training.preference.objective import Losses
from tastemaker.training.preference.train import train
from trainings import rows, train_config

ERRORS = DenoisingErrors(*torch.tensor([[0.25, 0.5], [1.0, 0.75], [0.5, 0.5], [0.5, 1.0]]))
GAP = torch.tensor([2.0, 0.5])


def own_dpo(errors: DenoisingErrors, *, beta: float = 5000.0) -> torch.Tensor:
    return dpo(errors.margin, beta=beta)


def dpo_positive(
    errors: DenoisingErrors, *, beta: float = 2.0, weight: float = 3.0
) -> torch.Tensor:
    penalty = weight * torch.relu(-errors.chosen_gain)
    return -F.logsigmoid(0.5 * beta * (errors.margin - penalty))


def mapo(errors: DenoisingErrors, *, beta: float = 1.0) -> torch.Tensor:
    """Reference-free: the policy's errors alone."""
    return errors.policy_chosen - F.logsigmoid(
        beta * (errors.policy_rejected - errors.policy_chosen)
    )


def gap_scaled(score_gap: torch.Tensor, margin: torch.Tensor) -> torch.Tensor:
    return -score_gap * margin


def mean(margin: torch.Tensor) -> torch.Tensor:
    return margin.mean()


def surprise(pixels: torch.Tensor) -> torch.Tensor:
    return pixels


def values(tmp_path: Path, loss: Any) -> list[float]:
    losses = Losses(train_config(tmp_path, loss=loss))
    result: list[float] = losses.weighted_sum(ERRORS, ERRORS, (GAP, GAP), GAP).tolist()
    return result


def test_own_losses_by_hand(tmp_path: Path) -> None:
    """Margins are (0.25, 0) - (-0.5, 0.25) = (0.75, -0.25); no chosen error has grown."""
    log = F.logsigmoid
    margin = torch.tensor([0.75, -0.25])
    assert values(tmp_path, {"name": own_dpo, "beta": 2.0}) == (-log(margin)).tolist()
    assert values(tmp_path, dpo_positive) == (-log(margin)).tolist()
    chosen, apart = torch.tensor([0.25, 0.5]), torch.tensor([0.75, 0.25])
    assert values(tmp_path, mapo) == (chosen - log(apart)).tolist()
    assert values(tmp_path, gap_scaled) == [-1.5, 0.125]


def test_an_own_dpo_trains_to_the_same_bytes(pairs: Path, tiny_model: Path, tmp_path: Path) -> None:
    folders = [
        train(train_config(tiny_model, loss=loss), pairs, tmp_path / str(i))
        for i, loss in enumerate(("dpo", own_dpo))
    ]
    first, second = (
        (folder / "pytorch_lora_weights.safetensors").read_bytes() for folder in folders
    )
    assert first == second
    assert rows(folders[0]) == rows(folders[1])


def module(file: Path, text: str) -> Any:
    file.write_text(text)
    spec = importlib.util.spec_from_file_location("mine", file)
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def test_a_changed_function_is_another_training(
    pairs: Path, tiny_model: Path, tmp_path: Path
) -> None:
    text = "def slope(margin):\n    return -margin\n"
    first = module(tmp_path / "mine.py", text).slope
    again = module(tmp_path / "same.py", text).slope
    other = module(tmp_path / "other.py", text.replace("-margin", "-2 * margin")).slope
    config = train_config(tiny_model, max_steps=1, loss=first)
    train(config, pairs, tmp_path / "out")
    train(train_config(tiny_model, max_steps=1, loss=again), pairs, tmp_path / "out")
    changed = train_config(tiny_model, max_steps=1, loss=other)
    with pytest.raises(TastemakerError, match=r"loss\.name: 'mine\.slope@.* there, 'mine\.slope@"):
        train(changed, pairs, tmp_path / "out")
    assert config.loss.name != changed.loss.name


def test_what_cannot_be_recorded_or_computed_is_refused(tmp_path: Path) -> None:
    beta = 3.0

    def closed(margin: torch.Tensor) -> torch.Tensor:
        return -beta * margin

    with pytest.raises(ValueError, match="variables of the function around it"):
        train_config(tmp_path, loss=closed)
    with pytest.raises(ValueError, match="has no source"):
        train_config(tmp_path, loss=torch.relu)
    with pytest.raises(TastemakerError, match=r"mean@.* returned shape \[\] for 2 pairs"):
        values(tmp_path, mean)
    with pytest.raises(TastemakerError, match=r"takes pixels; name its parameters from errors"):
        values(tmp_path, surprise)
