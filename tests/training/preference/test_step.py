"""A step leaves the device's queue alone: nothing in it waits for a number."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from tastemaker.core.errors import TastemakerError
from tastemaker.training.checkpoint import steps_kept
from tastemaker.training.preference.trainer import PreferenceTrainer
from trainings import rows

aten = torch.ops.aten


class NoWaiting(TorchDispatchMode):
    """Refuses what on a GPU waits for its result: numbers, and shapes that depend on values."""

    waits = (aten._local_scalar_dense.default, aten.nonzero.default, aten.masked_select.default)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        masks = func in (aten.index.Tensor, aten.index_put_.default) and any(
            index is not None and index.dtype == torch.bool for index in args[1]
        )
        assert func not in self.waits, func
        assert not masks, func
        return func(*args, **(kwargs or {}))


class NoReading(TorchFunctionMode):
    """Refuses what brings whole tensors to the CPU, which no kernel shows."""

    reads = (torch.Tensor.cpu, torch.Tensor.numpy, torch.Tensor.tolist)

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        assert func not in self.reads, func
        return func(*args, **(kwargs or {}))


def test_what_waits_is_refused() -> None:
    values = torch.ones(2)
    waiting = (values[0].item, values.nonzero, lambda: values[values > 0])
    for wait in (*waiting, values[0].__float__, values.tolist, values.cpu, values.numpy):
        with pytest.raises(AssertionError), NoWaiting(), NoReading():
            wait()


@pytest.mark.parametrize("credit", ["uniform", "dde"])
def test_no_step_waits_for_the_device(
    credit: str, pairs: Path, tiny_model: Path, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"statistics": {}, "guards": {"safeguard": 0.1, "max_gradient": 1e9}}
    trainer = PreferenceTrainer(
        tiny_model, pairs, output=tmp_path, credit=credit, batch_size=2, device="cpu", **options
    )
    trainer.begin()
    for step in range(2):
        batch = trainer.batch(step)
        with NoWaiting(), NoReading():
            trainer._step([batch])
    row = trainer.read()
    assert row["loss"] > 0
    assert [each["step"] for each in rows(tmp_path)] == [1, 2]


def test_metrics_do_not_depend_on_when_they_are_read(
    pairs: Path, tiny_model: Path, tmp_path: Path
) -> None:
    short: dict[str, Any] = {"max_steps": 5, "batch_size": 2, "device": "cpu", "credit": "dde"}
    folders = []
    for steps in (1, 3):
        folder = tmp_path / str(steps)
        PreferenceTrainer(
            tiny_model, pairs, output=folder, logging_steps=steps, report_to=None, **short
        ).train()
        folders.append(folder)
    for name in ("metrics.jsonl", "credit.jsonl"):
        first, second = ((folder / name).read_bytes() for folder in folders)
        assert first == second


def test_no_checkpoint_of_unchecked_steps_is_written(
    pairs: Path, tiny_model: Path, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"max_steps": 8, "save_steps": 4, "logging_steps": 50}
    trainer = PreferenceTrainer(
        tiny_model, pairs, output=tmp_path, batch_size=2, device="cpu", report_to=None, **options
    )
    loss = trainer.loss
    computed = []

    def breaks(batch: Any) -> Any:
        computed.append(loss(batch))
        if len(computed) == 6:
            computed[-1].loss.data.fill_(float("nan"))
        return computed[-1]

    trainer.loss = breaks  # type: ignore[method-assign]
    with pytest.raises(TastemakerError, match=r"step 6: the loss is nan.*step-000004"):
        trainer.train()
    assert steps_kept(tmp_path / "checkpoints") == [4]
    assert [row["step"] for row in rows(tmp_path)] == [1, 2, 3, 4, 5]
