"""SVDiff: shifts by hand, weights that stay where nothing is learned, and vectors that stay."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

from tastemaker.backbones import load_backbone
from tastemaker.config.personalization import PersonalizeConfig
from tastemaker.training.personalization.personalize import personalize
from tastemaker.training.personalization.singular_values import (
    SpectralShift,
    keep_singular_values,
    train_singular_values,
)


def test_shifts_by_hand() -> None:
    """diag(3, 1) by -1 and -2: 2 and, cut off below, 0."""
    weight = torch.diag(torch.tensor([3.0, 1.0]))
    shift = SpectralShift(weight)
    assert torch.equal(shift(weight), weight)
    shift.delta.data = torch.tensor([-1.0, -2.0])
    torch.testing.assert_close(shift(weight), torch.diag(torch.tensor([2.0, 0.0])))


def test_a_network_starts_as_it_is_and_keeps_its_parameters() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), nn.Flatten(), nn.Linear(16, 2))
    network.requires_grad_(False)
    pixels, names = torch.rand(1, 3, 4, 4), list(network.state_dict())
    before = network(pixels)
    train_singular_values(network)
    assert torch.equal(network(pixels), before)
    deltas = [name for name, each in network.named_parameters() if each.requires_grad]
    assert [name.rpartition(".")[2] for name in deltas] == ["delta", "delta"]
    for name in deltas:
        network.get_parameter(name).data.fill_(0.1)
    moved = network(pixels)
    keep_singular_values(network)
    torch.testing.assert_close(network(pixels), moved)
    assert sorted(network.state_dict()) == sorted(names)


def test_a_personalised_pipeline_loads_and_keeps_its_singular_vectors(
    tiny_model: Path, tmp_path: Path
) -> None:
    for colour in ("red", "blue"):
        Image.new("RGB", (32, 32), colour).save(tmp_path / f"{colour}.png")
    options = {"photographs": str(tmp_path), "class_name": "toy", "method": "svdiff"}
    config = PersonalizeConfig(model=str(tiny_model), device="cpu", max_steps=2, **options)
    assert config.learning_rate == 1e-3
    model = personalize(config, tmp_path / "out")
    before, after = (load_backbone(str(each), device="cpu") for each in (tiny_model, model))
    changed = 0
    for name, old in before.denoiser.state_dict().items():
        new = after.denoiser.state_dict()[name]
        if old.dim() < 2:
            assert torch.equal(old, new), name
            continue
        u, s, v = torch.linalg.svd(old.flatten(1), full_matrices=False)
        inside = u.T @ new.flatten(1) @ v.T
        rest = new.flatten(1) - u @ torch.diag(inside.diagonal()) @ v
        assert rest.abs().max() == pytest.approx(0, abs=1e-4), name
        # AdamW moves each value by at most its rate at each step.
        assert (inside.diagonal() - s).abs().max() <= 2.5e-3, name
        changed += not torch.equal(old, new)
    assert changed > 10
