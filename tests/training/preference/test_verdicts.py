"""Training on single verdicts: unpaired images of a pool, desirable or undesirable."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from tastemaker.backbones.places import LORA_FILE
from tastemaker.config.training import TrainConfig
from tastemaker.core.errors import TastemakerError
from tastemaker.storage.pool import Pool
from tastemaker.training.preference.train import train
from tastemaker.training.preference.trainer import PreferenceTrainer
from trainings import rows, train_config


@pytest.fixture(scope="module")
def pool(pairs: Path) -> Path:
    """Sixteen scored images of eight prompts."""
    return pairs.parent / "pool"


@pytest.fixture(scope="module")
def ranked(pool: Path) -> list[float]:
    """The scores, highest first."""
    return sorted(Pool(pool).scores()["tiny"].to_pylist(), reverse=True)


def verdicts(model: Path, threshold: float, **options: Any) -> TrainConfig:
    own = {"loss": "kto", "verdicts": "tiny", "verdict_threshold": threshold}
    return train_config(model, **{**own, **options})


def test_each_sample_has_an_image_of_either_label(
    pool: Path, ranked: list[float], tiny_model: Path, tmp_path: Path
) -> None:
    """Three desirable images of sixteen, each with the prompt that it was drawn for."""
    config = verdicts(tiny_model, ranked[2])
    trainer = PreferenceTrainer(str(tiny_model), str(pool), config, output=tmp_path)
    index = trainer.batches.pairs(0, range(39))
    gaps = torch.tensor(trainer.data.examples["gap"])[index]
    assert (gaps[:, 0] >= 0).all()
    assert (gaps[:, 1] < 0).all()
    # Epochs of three and of thirteen.
    for first in range(0, 39, 3):
        assert len(index[first : first + 3, 0].unique()) == 3
    for first in range(0, 39, 13):
        assert len(index[first : first + 13, 1].unique()) == 13
    images, prompts, between = trainer.batches.sides(index)
    assert torch.equal(images, torch.cat([trainer.data.images(each) for each in index.T]))
    assert torch.equal(prompts, torch.cat([trainer.data.prompts(each) for each in index.T]))
    assert (prompts[:39] != prompts[39:]).any()
    assert torch.allclose(between, gaps[:, 0] - gaps[:, 1])


def test_it_resumes_exactly_and_is_independent_of_the_cut(
    pool: Path, ranked: list[float], tiny_model: Path, tmp_path: Path
) -> None:
    options = {"max_steps": 3, "save_steps": 1, "learning_rate": 0.01}
    config = verdicts(tiny_model, ranked[4], **options)
    whole = train(config, pool, tmp_path / "whole")
    assert rows(whole)[0]["loss"] == 0.5
    again = shutil.copytree(whole, tmp_path / "again")
    for file in ("done.json", "checkpoints/step-000003.safetensors", LORA_FILE):
        (again / file).unlink()
    train(config, pool, again)
    assert (again / LORA_FILE).read_bytes() == (whole / LORA_FILE).read_bytes()
    cut = {"batch_size": 2, "gradient_accumulation_steps": 2}
    parts = train(verdicts(tiny_model, ranked[4], **options, **cut), pool, tmp_path / "parts")
    for one, other in zip(rows(whole), rows(parts), strict=True):
        assert other["loss"] == pytest.approx(one["loss"], rel=1e-3)


def test_what_does_not_fit_is_refused(
    pool: Path, pairs: Path, ranked: list[float], tiny_model: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="set loss=kto"):
        verdicts(tiny_model, 0.5, loss="dpo")
    with pytest.raises(ValueError, match="neither reference_draws, curriculum"):
        verdicts(tiny_model, 0.5, reference_draws=1)
    for config, folder, message in (
        (verdicts(tiny_model, ranked[0] + 1), pool, "no image is desirable"),
        (verdicts(tiny_model, ranked[-1] - 1), pool, "no image is undesirable"),
        (verdicts(tiny_model, 0.5, verdicts="liked"), pool, "no scores by 'liked'"),
        (verdicts(tiny_model, 0.5), pairs, "give a pool"),
    ):
        with pytest.raises(TastemakerError, match=message):
            train(config, folder, tmp_path / "out")
