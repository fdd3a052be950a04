"""Reference errors on fixed draws: equal to the live reference, computed once, kept."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from tastemaker.backbones.places import LORA_FILE
from tastemaker.config.training import TrainConfig
from tastemaker.core.errors import TastemakerError
from tastemaker.training.batches import mean_square
from tastemaker.training.preference.fixed_draws import FixedDraws
from tastemaker.training.preference.objective import FrozenCopy, Reference
from tastemaker.training.preference.train import train
from tastemaker.training.preference.trainer import PreferenceTrainer
from trainings import rows, train_config

SHORT: dict[str, Any] = {"batch_size": 4, "report_to": None, "max_steps": 6}


def trainer_of(model: Path, pairs: Path, folder: Path, **options: Any) -> PreferenceTrainer:
    config = train_config(model, **{**SHORT, **options})
    return PreferenceTrainer(model, pairs, config, output=folder)


def copied(pairs: Path, folder: Path) -> Path:
    """The same pairs and their pool, of which nothing is known."""
    shutil.copytree(pairs.parent, folder, ignore=shutil.ignore_patterns("encoded"))
    return folder / pairs.name


@pytest.fixture
def own_pairs(pairs: Path, tmp_path: Path) -> Path:
    return copied(pairs, tmp_path / "data")


@pytest.mark.parametrize("credit", ["uniform", "dde"])
def test_known_errors_are_those_of_the_live_reference(
    credit: str, own_pairs: Path, tiny_model: Path, tmp_path: Path
) -> None:
    options = {"reference_draws": 2, "proportion_empty_prompts": 0.5, "credit": credit}
    trainer = trainer_of(tiny_model, own_pairs, tmp_path, **options)
    trainer.begin()
    for step in range(trainer.config.max_steps):
        batch = trainer.batch(step)
        live = mean_square(trainer.reference.residual(batch))
        assert batch.reference_errors is not None
        torch.testing.assert_close(batch.reference_errors, live, rtol=1e-6, atol=1e-6)
        trainer.train_step(batch)


def test_epochs_take_turns_with_the_draws(
    own_pairs: Path, tiny_model: Path, tmp_path: Path
) -> None:
    trainer = trainer_of(tiny_model, own_pairs, tmp_path, batch_size=8, reference_draws=2)
    epochs = [trainer.batch(step) for step in range(4)]  # of eight pairs
    timesteps = [sorted(batch.timesteps.tolist()) for batch in epochs]
    errors = [batch.reference_errors.sort().values for batch in epochs]  # type: ignore[union-attr]
    for first, second in ((0, 2), (1, 3)):
        assert timesteps[first] == timesteps[second]
        assert errors[first].equal(errors[second])
    assert timesteps[0] != timesteps[1]


def forbid(monkeypatch: pytest.MonkeyPatch, after: int = 0) -> list[int]:
    """Let the reference run so many times; the list grows with each."""
    ran: list[int] = []
    residual = Reference.residual

    def limited(self: Reference, batch: Any) -> torch.Tensor:
        if len(ran) == after:
            raise KeyboardInterrupt
        ran.append(1)
        return residual(self, batch)

    monkeypatch.setattr(Reference, "residual", limited)
    return ran


def test_killed_while_computing_goes_on_with_what_is_known(
    pairs: Path, own_pairs: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = train_config(tiny_model, **SHORT, reference_draws=2)
    with monkeypatch.context() as patched:
        forbid(patched, after=1)
        with pytest.raises(KeyboardInterrupt):
            train(config, own_pairs, tmp_path / "killed")
    with monkeypatch.context() as patched:
        ran = forbid(patched, after=3)  # four batches of four draw all of two times eight pairs
        killed = train(config, own_pairs, tmp_path / "killed")
    assert len(ran) == 3
    whole = train(config, copied(pairs, tmp_path / "again"), tmp_path / "whole")
    for name in (LORA_FILE, "metrics.jsonl"):
        assert (killed / name).read_bytes() == (whole / name).read_bytes()


def test_another_training_reads_the_errors_of_the_first(
    own_pairs: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(train_config(tiny_model, **SHORT, reference_draws=1), own_pairs, tmp_path / "1")
    forbid(monkeypatch)
    options = {"loss": {"name": "ipo", "beta": 100.0}, "credit": "dde", "max_steps": 8}
    other = train_config(tiny_model, **{**SHORT, **options}, reference_draws=1)
    train(other, own_pairs, tmp_path / "2")
    for changed in ({"seed": 1}, {"sample_posterior": False}, {"credit": "window"}):
        trainer = trainer_of(tiny_model, own_pairs, tmp_path / "3", reference_draws=1, **changed)
        with pytest.raises(KeyboardInterrupt):
            trainer.batch(0)


def test_a_frozen_copy_is_freed_once_its_errors_are_known(
    own_pairs: Path, tiny_model: Path, tmp_path: Path
) -> None:
    options = {"method": "full", "reference": "frozen_copy", "reference_draws": 1}
    trainer = trainer_of(tiny_model, own_pairs, tmp_path, **options)
    trainer.run()
    assert isinstance(trainer.reference, FrozenCopy)
    assert all(each.is_meta for each in trainer.reference.denoiser.parameters())
    assert rows(tmp_path)[0]["rewards/margins"] == pytest.approx(0, abs=1e-6 * 5000)


def test_errors_that_are_known_stay(tmp_path: Path) -> None:
    file = tmp_path / "reference.npy"
    fixed = FixedDraws(pairs=2, draws=1, file=file)
    fixed.write([-1], torch.tensor([1.0, 2.0]))
    fixed.write([-2, -1], torch.tensor([3.0, 9.0, 4.0, 9.0]))
    again = FixedDraws(pairs=2, draws=1, file=file)
    assert again.read([-1, -2]).tolist() == [1, 3, 2, 4]
    assert again.known([-1, -2])
    cut = tmp_path / "cut.npy"
    cut.write_bytes(file.read_bytes()[:-4])
    assert not FixedDraws(pairs=2, draws=1, file=cut).known([-1])
    with pytest.raises(TastemakerError, match="not finite"):
        fixed.write([-1], torch.tensor([float("nan"), 0.0]))


def test_what_needs_the_whole_prediction_is_refused() -> None:
    with pytest.raises(ValueError, match=r"statistics\.target=reference.*reference_draws"):
        TrainConfig(model="m", reference_draws=1, statistics={})
    TrainConfig(model="m", reference_draws=1, statistics={"target": "data"})
