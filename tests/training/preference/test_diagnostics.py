"""What training tells about its credit scheme, and the figures drawn from it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from tastemaker.backbones import load_backbone
from tastemaker.core.errors import TastemakerError
from tastemaker.losses import DenoisingErrors
from tastemaker.reporting.credit import figures, panels, read
from tastemaker.training.encoding import encode
from tastemaker.training.preference.diagnostics import BANDS, POINTS, observe
from tastemaker.training.preference.pairs import open_pairs
from tastemaker.training.preference.train import train
from trainings import batch_of, train_config


def errors(pol_c: float, pol_r: float, ref_c: float, ref_r: float) -> DenoisingErrors:
    """One pair's errors, the policy's with a graph."""
    leaves = [torch.tensor([value], requires_grad=True) for value in (pol_c, pol_r)]
    # Not leaves: as in training, the errors are made from weights.
    policy = [leaf * 1.0 for leaf in leaves]
    return DenoisingErrors(*policy, torch.tensor([ref_c]), torch.tensor([ref_r]))


def test_observed_values_by_hand() -> None:
    held = errors(0.5, 1.0, 0.75, 1.0)  # margin 0.25
    losses = -torch.nn.functional.logsigmoid(0.5 * 4.0 * held.margin)
    z, accuracy, saturation, weight, gradient = observe(held, held, losses, beta=4.0)
    assert z.item() == pytest.approx(0.5)
    assert accuracy.item() == 1
    assert saturation.item() == pytest.approx(1 / (1 + math.exp(0.5)))
    assert weight.item() == pytest.approx(saturation.item())
    assert gradient.item() == pytest.approx(saturation.item() ** 2 * (0.5 + 1.0))


def test_weight_of_a_saturated_hinge_is_zero() -> None:
    held = errors(0.0, 5.0, 5.0, 0.0)
    losses = torch.relu(1 - 0.5 * 2.0 * held.margin)
    assert observe(held, held, losses, beta=2.0)[3:].tolist() == [[0], [0]]
    only_chosen = observe(held, held, held.policy_chosen, beta=2.0)[3:]
    assert only_chosen.tolist() == [[1], [0]]  # its error is 0


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "credit.jsonl").open()]


def test_first_step_weighs_by_the_scale(pairs: Path, tiny_model: Path, tmp_path: Path) -> None:
    config = train_config(tiny_model, max_steps=2, credit="dde_single")
    out = train(config, pairs, tmp_path / "out")
    first = rows(out)[0]
    assert sum(first["count"]) == 4
    assert sum(first["margin"]) == 0
    assert sum(first["accuracy"]) == sum(first["saturation"]) == 2
    backbone = load_backbone(str(tiny_model), device="cpu")
    data = encode(open_pairs(pairs), backbone, tmp_path / "encoded")
    batch = batch_of(data, backbone, range(4), seed=config.seed, sample_posterior=True)
    timesteps = batch.timesteps[:4]
    expected = torch.zeros(BANDS, dtype=torch.float64)
    kappa = backbone.noise_schedule.kappa[timesteps].clamp(max=10)
    expected.index_add_(0, timesteps * BANDS // 1000, 0.5 * kappa)
    assert first["weight"] == pytest.approx(expected.tolist(), rel=1e-5)


def test_corrections_are_kept_and_drawn(pairs: Path, tiny_model: Path, tmp_path: Path) -> None:
    out = train(train_config(tiny_model, credit="dde"), pairs, tmp_path / "out")
    credit = read(out)
    assert credit is not None
    assert list(credit.corrections) == [1, 2, 3]
    assert credit.corrections[3].shape == (4, POINTS)
    assert (credit.corrections[3][:, -1] == 0).all()
    assert (credit.corrections[3][:, 0] > 0).all()
    drawn = figures(out)
    bands = ["weight", "margin", "accuracy", "gradient"]
    assert list(drawn) == ["kappa", "correction", "convergence", *bands]
    (shares,) = drawn["gradient"].axes
    expected = credit.sums["gradient"][2] / credit.sums["gradient"][2].sum()
    assert shares.lines[2].get_ydata() == pytest.approx(100 * expected)
    (axes,) = drawn["correction"].axes
    assert axes.lines[0].get_ydata() == pytest.approx(credit.corrections[3][0])
    (kappa,) = drawn["kappa"].axes
    schedule = load_backbone(str(tiny_model), device="cpu").noise_schedule
    assert kappa.lines[0].get_ydata()[-1] == pytest.approx(schedule.kappa[-1].item())
    drawn["kappa"].savefig(tmp_path / "kappa.png")
    assert (tmp_path / "kappa.png").stat().st_size > 1000
    assert all("#01020" not in panel.svg for panel in panels(out))
    assert all("$" not in panel.svg for panel in panels(out))


def test_schemes_without_arrays_have_no_correction(
    pairs: Path, tiny_model: Path, tmp_path: Path
) -> None:
    window = {"name": "window", "low": 200, "high": 700}
    out = train(train_config(tiny_model, credit=window), pairs, tmp_path / "out")
    assert list(figures(out)) == ["kappa", "weight", "margin", "accuracy", "gradient"]
    counts = [sum(each) for each in zip(*(row["count"] for row in rows(out)), strict=True)]
    assert sum(counts) == 12
    assert counts[:2] == [0, 0]
    assert counts[7:] == [0, 0, 0]


def test_a_folder_without_training_is_named(tmp_path: Path) -> None:
    assert panels(tmp_path) == []
    with pytest.raises(TastemakerError, match=r"credit\.jsonl"):
        figures(tmp_path)
