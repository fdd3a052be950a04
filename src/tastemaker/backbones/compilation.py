"""Regional compilation: the repeated blocks of a denoiser by `torch.compile`."""

from __future__ import annotations

import functools
from typing import Any

import torch

from tastemaker.core.errors import TastemakerError

RECOMPILE_LIMIT = 64
"""Most graphs of a kind of block. torch stops at 8: SD1.5's three widths, each once for the policy,
the reference and drawing, are more."""


def compile_blocks(denoiser: Any, *, dynamic: bool = False) -> None:
    """Compile the repeated blocks of a denoiser, in place: names of weights stay as they are.

    Adapters come before it. Switched off and on, they make one more graph per width of the blocks.

    Args:
        denoiser: A U-Net or a transformer of diffusers, on its device.
        dynamic: Batches differ in size: one graph for all sizes, in place of one for the first and
            one for all others.

    Raises:
        TastemakerError: As `check_compile`.
    """
    check_compile(denoiser, next(denoiser.parameters()).device)
    torch._dynamo.config.recompile_limit = RECOMPILE_LIMIT
    denoiser.compile_repeated_blocks(dynamic=dynamic or None)


def check_compile(denoiser: Any, device: torch.device) -> None:
    """Refuse `torch_compile` where it cannot work.

    Args:
        denoiser: A U-Net or a transformer of diffusers, also one without weights.
        device: Where it will compute.

    Raises:
        TastemakerError: diffusers names no repeated blocks of the network, or torch cannot compile
            for the device.
    """
    if not getattr(denoiser, "_repeated_blocks", None):
        raise TastemakerError(
            f"torch_compile: diffusers names no repeated blocks of a {type(denoiser).__name__}; set"
            " torch_compile=false."
        )
    _check_compiler(device.type)


@functools.cache
def _check_compiler(device: str) -> None:
    """Compile an addition: that a compiler is named does not say that it works."""
    needed = "Triton" if device == "cuda" else "a C++ compiler such as g++ (or name one in CXX)"
    try:
        torch.compile(_plus_one)(torch.ones(1, device=device))
    except Exception as error:  # whatever torch, Triton or the compiler stumble over
        said = str(error).partition("\n")[0][:200]
        raise TastemakerError(
            f"torch_compile: torch cannot compile for {device!r} here ({said}); install {needed},"
            " or set torch_compile=false."
        ) from error


def _plus_one(value: torch.Tensor) -> torch.Tensor:
    return value + 1
