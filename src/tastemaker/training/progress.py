"""The steps that are left of a training, with their progress bar."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from accelerate import Accelerator
from tqdm import tqdm

from tastemaker.config.training import OptimisationConfig


def steps_left(
    config: OptimisationConfig, accelerator: Accelerator, start: int, unit: str
) -> Iterator[tuple[int, Any]]:
    """Count the optimizer steps that are left, and the examples in them on a bar.

    Args:
        config: Steps, batch size and accumulation.
        accelerator: Of how many processes.
        start: Steps done.
        unit: What an example is: "pairs" or "images".

    Yields:
        Each step's number, and the bar, to be told what the step did.
    """
    examples = config.examples_per_step(accelerator.num_processes)
    with tqdm(
        total=config.max_steps * examples, initial=start * examples, desc="train", unit=unit
    ) as bar:
        for step in range(start, config.max_steps):
            yield step, bar
            bar.update(examples)
