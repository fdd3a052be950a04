"""FSDP2: shard, gather and re-shard parameters, as `accelerate launch` asks.

A split weight is a `DTensor`. To put one together takes all processes: what calls this module does
so in every process or in none. Without FSDP2 all of it hands back what it was given.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from accelerate import Accelerator
from torch.distributed.tensor import DTensor, distribute_tensor

from tastemaker.backbones.lora.adapters import trainable
from tastemaker.core.errors import TastemakerError


def prepare(
    accelerator: Accelerator,
    denoiser: torch.nn.Module,
    text_encoders: Sequence[torch.nn.Module],
    optimizer: torch.optim.Optimizer,
    *,
    wrapped: bool = True,
) -> tuple[torch.nn.Module, Sequence[torch.nn.Module], Any]:
    """Hand networks and optimizer to accelerate.

    FSDP2 puts other parameters in the denoiser's place, and into the optimizer: look them up anew.

    Args:
        accelerator: Of the training.
        denoiser: With or without weights that train.
        text_encoders: Those that train.
        optimizer: Over all weights that train.
        wrapped: Let accelerate wrap the networks; else the optimizer alone.

    Returns:
        Denoiser, text encoders and optimizer, as accelerate wrapped them.

    Raises:
        TastemakerError: A text encoder trains, or the denoiser does not, under FSDP2.
    """
    if not wrapped:
        return denoiser, text_encoders, accelerator.prepare(optimizer)
    if accelerator.is_fsdp2:
        if text_encoders or not trainable(denoiser):
            raise TastemakerError(
                "FSDP2 splits the denoiser's weights, and here text encoders train; launch without"
                " its configuration (every process then holds the whole model), or leave the text"
                " encoders as they are."
            )
        denoiser, optimizer = accelerator.prepare(denoiser, optimizer)
        return denoiser, [], optimizer
    # DDP refuses a network of which nothing trains.
    policy = accelerator.prepare(denoiser) if trainable(denoiser) else denoiser
    return (
        policy,
        [accelerator.prepare(each) for each in text_encoders],
        accelerator.prepare(optimizer),
    )


def split(accelerator: Accelerator, network: torch.nn.Module) -> torch.nn.Module:
    """Split a network that does not train, as the one that does.

    Args:
        accelerator: Of the training.
        network: For instance a frozen copy of the denoiser.

    Returns:
        The network itself.
    """
    if accelerator.is_fsdp2:
        from accelerate.utils.fsdp_utils import fsdp2_prepare_model

        network = fsdp2_prepare_model(accelerator, network)
    return network


def whole(value: torch.Tensor) -> torch.Tensor:
    """Put a split tensor together; any other is handed back."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def split_like(value: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Split a tensor that every process holds whole.

    Args:
        value: The same in all processes.
        like: Says how and where.

    Returns:
        `value` on the device of `like`, split as it is.
    """
    value = value.to(like.device)
    if not isinstance(like, DTensor):
        return value
    # No process needs another's copy.
    return distribute_tensor(value, like.device_mesh, like.placements, src_data_rank=None)


def join(network: torch.nn.Module, *, keep: bool) -> None:
    """Put each split weight that trains together, in its place: what is left is to save it.

    Args:
        network: It does not run any more afterwards.
        keep: Whether this process is the one that saves; the others drop what they help with.
    """
    for name, parameter in trainable(network).items():
        if not isinstance(parameter, DTensor):
            continue
        value = whole(parameter.detach())
        # The CPU: one GPU need not hold what several split among them.
        value = value.cpu() if keep else value.new_empty(0)
        owner, _, leaf = name.rpartition(".")
        setattr(network.get_submodule(owner), leaf, torch.nn.Parameter(value))
