"""Exact state of a training in one safetensors file: weights, AdamW moments, extras, step."""

from __future__ import annotations

import json
from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch

from tastemaker.config.training import OptimisationConfig
from tastemaker.core.errors import TastemakerError
from tastemaker.core.hardware import is_main_process
from tastemaker.storage.files import DamagedError, read_json_lines, write_text
from tastemaker.storage.tensors import read_tensors, write_tensors
from tastemaker.training.fsdp import split_like, whole

KEPT = 2
"""Checkpoints kept: the newest, and one to fall back to."""


class Stateful(Protocol):
    """Tensors that change from step to step, as a checkpoint keeps them."""

    def state(self) -> dict[str, torch.Tensor]:
        """Return the tensors to keep, by name."""
        ...

    def load(self, state: dict[str, torch.Tensor]) -> None:
        """Restore `state`.

        Raises:
            ValueError: It does not fit.
        """
        ...


@dataclass
class TrainState:
    """State of a training that changes from step to step.

    Attributes:
        weights: Parameters that train, by name.
        optimizer: AdamW over exactly these parameters.
        extras: What the training adds, by name: averaged weights, arrays of a credit scheme.
        scaler: The fp16 loss scaler, or None.
    """

    weights: Mapping[str, torch.nn.Parameter]
    optimizer: torch.optim.Optimizer
    extras: dict[str, Stateful] = field(default_factory=dict)
    scaler: Any = None


def checkpoint_file(folder: Path, step: int) -> Path:
    """Return the path of the checkpoint after so many optimizer steps."""
    return folder / f"step-{step:06d}.safetensors"


def save_checkpoint(state: TrainState, folder: Path, step: int, due: Container[int]) -> None:
    """Write a checkpoint atomically and drop older ones.

    All processes call it: sharded weights are gathered.

    Args:
        state: The state to keep.
        folder: Folder of checkpoints.
        step: Optimizer steps done.
        due: Steps after which a checkpoint is due.

    Raises:
        TastemakerError: The disk is full; older checkpoints stay.
    """
    parts: dict[str, torch.Tensor] = {f"weights.{k}": v for k, v in state.weights.items()}
    for kind, extra in state.extras.items():
        parts |= {f"{kind}.{name}": value for name, value in extra.state().items()}
    for name, parameter in state.weights.items():
        for key, value in state.optimizer.state.get(parameter, {}).items():
            parts[f"optimizer.{key}.{name}"] = torch.as_tensor(value)
    tensors, write = {}, is_main_process()
    for name, value in parts.items():
        joined = whole(value.detach())
        if write:
            tensors[name] = joined.cpu()
    if not write:
        return
    scaler = state.scaler.state_dict() if state.scaler is not None else None
    metadata = {"step": str(step), "scaler": json.dumps(scaler)}
    write_tensors(checkpoint_file(folder, step), tensors, metadata)
    drop_old(folder, due)


def due_steps(config: OptimisationConfig) -> set[int]:
    """Return the steps after which a checkpoint is due: every few, and after the last."""
    return {*range(config.save_steps, config.max_steps, config.save_steps), config.max_steps}


def drop_old(folder: Path, due: Container[int]) -> None:
    """Remove all checkpoints up to the newest one that is due, except the newest few of those due.

    One that an interrupted training wrote goes with the next, so that its folder ends as that of an
    undisturbed one.
    """
    steps = steps_kept(folder)
    keep = [step for step in steps if step in due][-KEPT:]
    for step in steps:
        if keep and step < keep[-1] and step not in keep:
            checkpoint_file(folder, step).unlink()


def steps_kept(folder: Path) -> list[int]:
    """Return the steps that have a checkpoint, in order."""
    files = sorted(folder.glob("step-*.safetensors"))
    return [int(file.stem.removeprefix("step-")) for file in files]


def last_good(folder: Path) -> str:
    """Name the newest checkpoint, as the end of an error message."""
    steps = steps_kept(folder)
    if not steps:
        return "There is no checkpoint yet."
    return f"The last good checkpoint is {checkpoint_file(folder, steps[-1])}."


def resume(state: TrainState, folder: Path) -> int:
    """Restore the newest checkpoint that is not damaged, in place.

    Args:
        state: A freshly built state with the same weights.
        folder: Folder of checkpoints.

    Returns:
        Optimizer steps done, 0 without a checkpoint.

    Raises:
        TastemakerError: It belongs to other weights.
    """
    for step in reversed(steps_kept(folder)):
        try:
            load_checkpoint(state, folder, step)
        except DamagedError:
            print(f"{checkpoint_file(folder, step)} is damaged; going on from the one before it.")
        else:
            return step
    return 0


def drop_later_lines(file: Path, step: int) -> None:
    """Drop the lines of JSON of steps that a resumed training does again; begin the file."""
    kept = [row for row in read_json_lines(file, step=int) if row["step"] <= step]
    write_text(file, "".join(json.dumps(row) + "\n" for row in kept))


def load_checkpoint(state: TrainState, folder: Path, step: int) -> None:
    """Restore a checkpoint in place.

    Args:
        state: A freshly built state with the same weights.
        folder: Folder of checkpoints.
        step: Which one.

    Raises:
        DamagedError: The file is torn, or its checksum is wrong; the state is as it was.
        TastemakerError: It belongs to other weights.
    """
    file = checkpoint_file(folder, step)
    tensors, metadata = read_tensors(file)
    expected = {f"weights.{name}" for name in state.weights}
    if expected != {name for name in tensors if name.startswith("weights.")}:
        raise TastemakerError(f"checkpoint {file} has the weights of another model; delete it.")
    for kind, extra in state.extras.items():
        try:
            extra.load({name: tensors[f"{kind}.{name}"] for name in extra.state()})
        except (KeyError, ValueError) as error:
            raise TastemakerError(f"checkpoint {file} has another {kind}: {error}") from None
    for name, parameter in state.weights.items():
        parameter.data.copy_(split_like(tensors[f"weights.{name}"], parameter))
        moments = {
            key: tensors[f"optimizer.{key}.{name}"]
            for key in ("step", "exp_avg", "exp_avg_sq")
            if f"optimizer.{key}.{name}" in tensors
        }
        # A sharded parameter's count of steps is whole in every process.
        state.optimizer.state[parameter] = {
            key: value.to(parameter.device) if key == "step" else split_like(value, parameter)
            for key, value in moments.items()
        }
    if state.scaler is not None:
        state.scaler.load_state_dict(json.loads(metadata["scaler"]))
