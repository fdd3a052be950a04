"""Seconds and bytes of work on a device, in all and part by part."""

from __future__ import annotations

import contextlib
import re
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

PARTS = ("data", "encode", "reference", "forward", "backward", "optimiser", "metrics")
"""Parts of a training step, in order; `metrics` is what the others leave."""


def synchronize(device: torch.device) -> None:
    """Wait until a device has done its work."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def seconds(device: torch.device, work: Callable[[], Any]) -> float:
    """Time work, to the end of what it leaves the device to do."""
    synchronize(device)
    began = time.perf_counter()
    work()
    synchronize(device)
    return time.perf_counter() - began


def interleaved(
    device: torch.device, works: dict[str, Callable[[], Any]], rounds: int
) -> dict[str, list[float]]:
    """Time several works in turn, so that a machine whose speed wanders is one to all of them.

    Args:
        device: Where they compute.
        works: By name; every other round goes through them backwards.
        rounds: Times that each is done.

    Returns:
        Seconds of each round, by name.
    """
    found: dict[str, list[float]] = {name: [] for name in works}
    for number in range(rounds):
        for name in list(works)[:: -1 if number % 2 else 1]:
            found[name].append(seconds(device, works[name]))
    return found


def spread(values: Sequence[float]) -> dict[str, float]:
    """Return median, smallest and largest value.

    Example:
        >>> spread([3.0, 1.0, 2.0])
        {'median': 2.0, 'min': 1.0, 'max': 3.0}
    """
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def ratios(above: Sequence[float], below: Sequence[float]) -> dict[str, float]:
    """Return the spread of the ratios of two works, round by round."""
    return spread([one / other for one, other in zip(above, below, strict=True)])


class PartTimer:
    """Seconds of the parts of a step; the device is waited for between them.

    Args:
        device: Where the parts compute.

    Attributes:
        seconds: By part, summed over its calls.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds = dict.fromkeys(PARTS, 0.0)

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Add the time inside to a part."""
        synchronize(self.device)
        began = time.perf_counter()
        yield
        synchronize(self.device)
        self.seconds[name] += time.perf_counter() - began

    @contextlib.contextmanager
    def step(self) -> Iterator[None]:
        """Count what is inside and in no part as `metrics`."""
        synchronize(self.device)
        began, before = time.perf_counter(), sum(self.seconds.values())
        yield
        synchronize(self.device)
        parts = sum(self.seconds.values()) - before
        self.seconds["metrics"] += time.perf_counter() - began - parts

    @contextlib.contextmanager
    def calls(self, owner: Any, method: str, part: str) -> Iterator[None]:
        """Add the calls of an object's method to a part."""
        original = getattr(owner, method)

        def timed(*arguments: Any, **options: Any) -> Any:
            with self.part(part):
                return original(*arguments, **options)

        setattr(owner, method, timed)
        try:
            yield
        finally:
            delattr(owner, method)

    @contextlib.contextmanager
    def forwards(self, network: torch.nn.Module) -> Iterator[None]:
        """Add a network's forward passes to `forward`, those without a graph to `reference`."""
        open_parts: list[contextlib.AbstractContextManager[None]] = []

        def enter(*_: Any) -> None:
            open_parts.append(self.part("forward" if torch.is_grad_enabled() else "reference"))
            open_parts[-1].__enter__()

        def leave(*_: Any) -> None:
            open_parts.pop().__exit__(None, None, None)

        hooks = network.register_forward_pre_hook(enter), network.register_forward_hook(leave)
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def shares(self) -> dict[str, float]:
        """Return the share of each part; they sum to 1."""
        whole = sum(self.seconds.values())
        return {name: value / whole for name, value in self.seconds.items()}


def peak_bytes(device: torch.device, work: Callable[[], Any]) -> int | None:
    """Measure the most memory that is taken while work is done.

    Args:
        device: Where it computes.
        work: The work.

    Returns:
        On CUDA what torch allocated; else the resident memory of the whole process; None where the
        system does not tell.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        work()
        return torch.cuda.max_memory_allocated(device)
    marks = Path("/proc/self/clear_refs")
    try:
        marks.write_text("5", encoding="ascii")  # Linux: the high-water mark begins anew
    except OSError:
        return None
    work()
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    most = re.search(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE)
    return 1024 * int(most[1]) if most else None
