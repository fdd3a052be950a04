"""Arithmetic of a step, and the rate at which this machine multiplies matrices."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from tastemaker.profiling.timing import seconds

ENOUGH = 0.02
"""Seconds of one product whose rate is taken."""


def flops(work: Callable[[], Any], device: torch.device) -> int:
    """Count the floating-point operations of work: those of its matrix products and convolutions.

    Compiled networks run uncompiled; on a CPU, whose fused attention torch does not count,
    attention is two products.

    Args:
        work: Done once.
        device: Where it computes.

    Returns:
        Operations, a multiplication with its addition counted as two.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.compiler.set_stance("force_eager"))
        if device.type == "cpu":
            stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        counter = stack.enter_context(FlopCounterMode(display=False))
        work()
    return int(counter.get_total_flops())


def matmul_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Measure the floating-point operations per second of a product of square matrices.

    Args:
        device: Where to compute.
        dtype: Of the matrices.

    Returns:
        The best of three products of the smallest size that takes `ENOUGH` seconds.
    """
    size = 128
    while True:
        matrix = torch.randn(size, size, device=device).to(dtype)
        matrix @ matrix
        took = min(seconds(device, partial(torch.mm, matrix, matrix)) for _ in range(3))
        if took >= ENOUGH or size >= 16384:
            return 2 * size**3 / took
        size *= 2
