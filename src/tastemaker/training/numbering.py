"""Global sample indices: a sample depends on seed and index alone.

Batch size, accumulation, number of processes and the point of resumption do not enter.
"""

from __future__ import annotations

import torch
from accelerate import Accelerator

from tastemaker.config.training import OptimisationConfig
from tastemaker.core.seeding import keyed_seed


def examples_of(
    config: OptimisationConfig, accelerator: Accelerator, step: int, part: int
) -> range:
    """Number the examples of one batch of this process.

    Args:
        config: Batch size and accumulation.
        accelerator: Which process of how many this is.
        step: Optimizer steps done.
        part: Which of the batches that the step accumulates.

    Returns:
        `config.batch_size` numbers, counted from the run's first example.
    """
    processes: int = accelerator.num_processes
    batch = part * processes + accelerator.process_index
    first = step * config.examples_per_step(processes) + batch * config.batch_size
    return range(first, first + config.batch_size)


def seed_dropout(config: OptimisationConfig, examples: range) -> None:
    """Seed the dropout of all adapters by the batch's first example.

    One mask is drawn for a whole batch: here alone the cut into batches enters.
    """
    torch.manual_seed(keyed_seed(config.seed, "dropout", examples.start))
