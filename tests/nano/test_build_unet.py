"""The training of the embedded U-Net: exact resume, on scenes of drawn discs."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from tastemaker.nano.build import unet
from tastemaker.nano.build.averaging import trapezoid
from tastemaker.nano.build.journal import Journal
from tastemaker.nano.build.latents import SceneBatches

NARROW = (8, 8, 16)


def trained(work: Path, steps: int, total: int) -> dict[str, torch.Tensor]:
    """Train to a step of so many, and return the weights."""
    trainer = unet.Trainer(work, NARROW, ["a cat"])
    batches = SceneBatches(work, 2)
    for step in range(trainer.step, steps):
        trainer.total = total
        trainer.update(trainer.loss(batches[step]))
    trainer.save()
    return {**trainer.unet.state_dict(), **trainer.average.weights}


def test_a_resumed_training_equals_an_undisturbed_one(
    work: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unet, "SNAPSHOTS", (1.0,))
    journal = Journal(work / "unet.jsonl")
    other = tmp_path_factory.mktemp("work") / "undisturbed"
    shutil.copytree(work, other)
    trained(work, 2, 4)
    resumed = unet.Trainer(work, NARROW, ["a cat"])
    assert resumed.step == 2
    unet.fit(resumed, SceneBatches(work, 2), journal, steps=4)
    undisturbed = trained(other, 4, 4)
    after = {**resumed.unet.state_dict(), **resumed.average.weights}
    assert all(torch.equal(after[name], value) for name, value in undisturbed.items())
    assert {file.name for file in (work / "snapshots").iterdir()} == {"100.safetensors", "100.png"}


def test_nothing_depends_on_the_total_until_the_rate_falls() -> None:
    rates = [[trapezoid(step, total) for step in range(800)] for total in (1000, 9000)]
    assert rates[0] == rates[1]
    assert trapezoid(900, 1000) == 0.5


def test_careless_captions_tell_the_same_scenes_otherwise(work: Path) -> None:
    right, careless = SceneBatches(work, 16), SceneBatches(work, 16, careless=True)
    assert torch.equal(careless[5][0], right[5][0])
    assert not torch.equal(careless[5][1], right[5][1])


def test_careless_steps_follow_and_go_on_where_they_stopped(
    work: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unet, "CARELESS_STEPS", 2)
    journal, batches = Journal(work / "unet.jsonl"), SceneBatches(work, 2, careless=True)
    trained(work, 2, 2)
    other = tmp_path_factory.mktemp("work") / "undisturbed"
    shutil.copytree(work, other)
    stopped = unet.Trainer(work, NARROW, ["a cat"])
    stopped.update(stopped.loss(batches[2]))
    stopped.save()
    weights = []
    for folder in (work, other):
        trainer = unet.Trainer(folder, NARROW, ["a cat"])
        unet.fit_careless(trainer, batches, journal)
        assert (trainer.step, trainer.total) == (4, 2)
        weights.append(trainer.average.weights)
    assert all(torch.equal(weights[0][name], value) for name, value in weights[1].items())
    assert (work / "snapshots" / "careless.safetensors").is_file()
