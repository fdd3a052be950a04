"""Kept noise: each image's own, by hand, also where the reference's errors are computed once."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from tastemaker.core.errors import TastemakerError
from tastemaker.storage.candidates import Rows
from tastemaker.storage.pairs import PairSet
from tastemaker.storage.parquet import read_table, write_table
from tastemaker.storage.pool import Pool
from tastemaker.training.preference.trainer import PreferenceTrainer
from trainings import train_config


def trainer_of(model: Path, pairs: object, folder: Path, **options: object) -> PreferenceTrainer:
    config = train_config(model, noise="kept", sample_posterior=False, **options)
    return PreferenceTrainer(model, pairs, config, output=folder)  # type: ignore[arg-type]


@pytest.mark.parametrize("draws", [None, 1])
def test_images_get_the_noise_that_they_were_drawn_from(
    draws: int | None, pairs: Path, tiny_model: Path, tmp_path: Path
) -> None:
    trainer = trainer_of(tiny_model, pairs, tmp_path, reference_draws=draws)
    batch = trainer.batch(0, pairs=[5, 2])
    rows = list(PairSet(pairs).rows())
    pool = Rows(PairSet(pairs).pools()[0])
    order = (rows[5]["chosen_id"], rows[2]["chosen_id"])
    order += (rows[5]["rejected_id"], rows[2]["rejected_id"])
    schedule = trainer.backbone.noise_schedule
    clean, _ = trainer.data.latents.take(trainer.data.images(torch.tensor([5, 2])))
    for i, candidate in enumerate(order):
        generator = torch.Generator().manual_seed(pool[candidate]["seed"])
        noise = torch.randn(clean.shape[1:], generator=generator)
        timestep = int(batch.timesteps[i])
        expected = schedule.alpha[timestep] * clean[i] + schedule.sigma[timestep] * noise
        torch.testing.assert_close(batch.noisy_latents[i], expected.float(), rtol=1e-5, atol=1e-5)
        assert batch.target[i].equal(noise)
    assert batch.timesteps[:2].equal(batch.timesteps[2:])


def test_images_that_no_seed_drew_are_refused(
    pairs: Path, tiny_model: Path, tmp_path: Path
) -> None:
    picture = Image.new("RGB", (32, 32))
    rows = [{"prompt": "a dog", "chosen": picture, "rejected": picture}]
    with pytest.raises(TastemakerError, match=r"noise=kept needs pairs of a pool.*noise=drawn"):
        trainer_of(tiny_model, rows, tmp_path / "a")
    table = read_table(PairSet(pairs).pools()[0].shards()[0])
    place = table.column_names.index("source")
    imported = table.set_column(place, "source", [["comparison"] * len(table)])
    write_table(tmp_path / "pool" / "candidates-00000.parquet", imported)
    copy = PairSet(tmp_path / "pairs")
    copy.write(PairSet(pairs).rows(), [Pool(tmp_path / "pool")])
    with pytest.raises(TastemakerError, match=r"was not drawn from noise.*noise=drawn"):
        trainer_of(tiny_model, copy, tmp_path / "b")
    assert not (tmp_path / "b").exists()
