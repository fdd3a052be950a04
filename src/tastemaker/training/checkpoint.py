"""Exact state of a training run in one safetensors file: weights, AdamW moments, EMA, step."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tastemaker.config.training import OptimisationConfig
from tastemaker.core.errors import TastemakerError
from tastemaker.storage.files import DamagedError, read_tensors, write_tensors
from tastemaker.training.fsdp import split_like, whole
from tastemaker.training.preference.credit import Credit

KEPT = 2
"""Checkpoints kept: the newest, and one to fall back to."""


@dataclass
class TrainState:
    """What changes from step to step.

    Attributes:
        weights: Parameters that train, by name.
        optimizer: AdamW over exactly these parameters.
        ema: Averages of the weights by name; empty where EMA is off.
        credit: The credit scheme, whose arrays change with every step.
        scaler: The fp16 loss scaler, or None.
    """

    weights: Mapping[str, torch.nn.Parameter]
    optimizer: torch.optim.Optimizer
    ema: dict[str, torch.Tensor]
    credit: Credit
    scaler: Any = None


def checkpoint_file(folder: Path, step: int) -> Path:
    """Return the path of the checkpoint after so many optimizer steps."""
    return folder / f"step-{step:06d}.safetensors"


def save_checkpoint(state: TrainState, folder: Path, step: int, *, write: bool = True) -> None:
    """Write a checkpoint atomically and drop all but the newest few.

    All processes call it: weights that they hold a part of each are put together.

    Args:
        state: The state to keep.
        folder: Folder of checkpoints.
        step: Optimizer steps done.
        write: Whether this process is the one that writes.

    Raises:
        TastemakerError: The disk is full; older checkpoints stay.
    """
    held: dict[str, torch.Tensor] = {f"weights.{k}": v for k, v in state.weights.items()}
    held |= {f"ema.{name}": value for name, value in state.ema.items()}
    held |= {f"credit.{name}": value for name, value in state.credit.state().items()}
    for name, parameter in state.weights.items():
        for key, value in state.optimizer.state.get(parameter, {}).items():
            held[f"optimizer.{key}.{name}"] = torch.as_tensor(value)
    tensors = {}
    for name, value in held.items():
        joined = whole(value.detach())
        if write:
            tensors[name] = joined.cpu()
    if not write:
        return
    scaler = state.scaler.state_dict() if state.scaler is not None else None
    metadata = {"step": str(step), "scaler": json.dumps(scaler)}
    write_tensors(checkpoint_file(folder, step), tensors, metadata)
    drop_old(folder)


def drop_old(folder: Path) -> None:
    """Remove all checkpoints but the newest few."""
    for old in sorted(folder.glob("step-*.safetensors"))[:-KEPT]:
        old.unlink()


def steps_kept(folder: Path) -> list[int]:
    """Return the steps of which there is a checkpoint, in order."""
    files = sorted(folder.glob("step-*.safetensors"))
    return [int(file.stem.removeprefix("step-")) for file in files]


def last_good(folder: Path) -> str:
    """Say where the newest checkpoint lies, as the end of an error message."""
    steps = steps_kept(folder)
    if not steps:
        return "There is no checkpoint yet."
    return f"The last good checkpoint is {checkpoint_file(folder, steps[-1])}."


def is_due(config: OptimisationConfig, step: int) -> bool:
    """Say whether a checkpoint is written after so many steps: every few, and after the last."""
    return step % config.save_steps == 0 or step == config.max_steps


def resume(state: TrainState, folder: Path) -> int:
    """Restore the newest checkpoint that is whole in place, where there is one.

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
        raise TastemakerError(f"checkpoint {file} holds the weights of another model; delete it.")
    try:
        state.credit.load({name: tensors[f"credit.{name}"] for name in state.credit.state()})
    except (KeyError, ValueError) as error:
        raise TastemakerError(f"checkpoint {file} has other credit arrays: {error}") from None
    for name, parameter in state.weights.items():
        parameter.data.copy_(split_like(tensors[f"weights.{name}"], parameter))
        if state.ema:
            state.ema[name].copy_(split_like(tensors[f"ema.{name}"], parameter))
        moments = {
            key: tensors[f"optimizer.{key}.{name}"]
            for key in ("step", "exp_avg", "exp_avg_sq")
            if f"optimizer.{key}.{name}" in tensors
        }
        # AdamW keeps its step count on the CPU, its moments beside the parameter.
        state.optimizer.state[parameter] = {
            key: value if key == "step" else split_like(value, parameter)
            for key, value in moments.items()
        }
    if state.scaler is not None:
        state.scaler.load_state_dict(json.loads(metadata["scaler"]))
