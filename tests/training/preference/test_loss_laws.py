"""Laws of a training that hold for every registered loss."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tastemaker.backbones.places import LORA_FILE
from tastemaker.core.errors import TastemakerError
from tastemaker.core.registry import LOSSES
from tastemaker.training.preference.train import train
from trainings import rows, train_config


@pytest.mark.parametrize("name", LOSSES.names())
def test_a_loss_resumes_exactly_and_is_independent_of_the_cut(
    name: str, pairs: Path, tiny_model: Path, tmp_path: Path
) -> None:
    # An epsilon above the gradients: the step of a weight is then smooth in its gradient.
    options = {"loss": name, "max_steps": 2, "save_steps": 1, "adam_epsilon": 1e-3}
    options["learning_rate"] = 0.01
    whole = train(train_config(tiny_model, **options), pairs, tmp_path / "whole")
    again = shutil.copytree(whole, tmp_path / "again")
    for file in ("done.json", "checkpoints/step-000002.safetensors", LORA_FILE):
        (again / file).unlink()
    train(train_config(tiny_model, **options), pairs, again)
    for file in ("metrics.jsonl", LORA_FILE):
        assert (again / file).read_bytes() == (whole / file).read_bytes()
    cut = {"batch_size": 2, "gradient_accumulation_steps": 2}
    parts = train(train_config(tiny_model, **options, **cut), pairs, tmp_path / "parts")
    for one, other in zip(rows(whole), rows(parts), strict=True):
        assert other["loss"] == pytest.approx(one["loss"], rel=1e-3, abs=1e-5)
    first, second = (load_file(folder / LORA_FILE) for folder in (whole, parts))
    assert all(torch.allclose(first[key], second[key], atol=5e-4) for key in first)


def test_the_reference_point_is_that_of_the_step_before(
    pairs: Path, tiny_model: Path, tmp_path: Path
) -> None:
    options = {"loss": {"name": "kto", "beta": 1e-3}, "max_steps": 3, "learning_rate": 0.05}
    folder = train(train_config(tiny_model, save_steps=1, **options), pairs, tmp_path / "out")
    state = load_file(folder / "checkpoints" / "step-000003.safetensors")
    # rewards are 0.5 * beta * (ref - pol).
    last = rows(folder)[-1]
    mean = (last["rewards/chosen"] + last["rewards/rejected"]) / 1e-3
    assert state["losses.mean_gain"].item() == pytest.approx(mean, rel=1e-3)
    assert mean != 0


def test_a_loss_of_predictions_needs_a_live_reference(
    pairs: Path, tiny_model: Path, tmp_path: Path
) -> None:
    config = train_config(tiny_model, loss="dspo", reference_draws=2)
    with pytest.raises(TastemakerError, match="leave reference_draws out"):
        train(config, pairs, tmp_path / "out")
    assert not (tmp_path / "out" / "metrics.jsonl").exists()
