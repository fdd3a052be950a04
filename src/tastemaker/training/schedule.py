"""The learning rate as a pure function of the step, so that resuming needs no scheduler state."""

from __future__ import annotations

import math

import torch

from tastemaker.config.training import OptimisationConfig


def learning_rate_at(step: int, config: OptimisationConfig) -> float:
    """Learning rate of an optimizer step: linear warm-up, then constant, cosine or linear decay.

    Args:
        step: From 0 to `config.max_steps - 1`.
        config: Peak rate, warm-up, schedule and number of steps.

    Returns:
        The rate; cosine and linear reach 0 one step after the last.

    Example:
        >>> config = OptimisationConfig(
        ...     model="m", steps=4, learning_rate=1.0, schedule="linear"
        ... )
        >>> [learning_rate_at(step, config) for step in range(4)]
        [1.0, 0.75, 0.5, 0.25]
    """
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / (config.warmup_steps + 1)
    progress = (step - config.warmup_steps) / max(1, config.max_steps - config.warmup_steps)
    factors = {
        "constant": 1.0,
        "linear": 1.0 - progress,
        "cosine": 0.5 * (1.0 + math.cos(math.pi * progress)),
    }
    return config.learning_rate * factors[config.lr_scheduler]


def set_learning_rate(
    optimizer: torch.optim.Optimizer, step: int, config: OptimisationConfig
) -> float:
    """Give every group of parameters its share of the learning rate of a step.

    Args:
        optimizer: From `adamw`: a group's `rate` is its share.
        step: From 0 to `config.max_steps - 1`.
        config: Peak rate, warm-up, schedule and number of steps.

    Returns:
        The learning rate of a share of 1.
    """
    rate = learning_rate_at(step, config)
    for group in optimizer.param_groups:
        group["lr"] = rate * group["rate"]
    return rate
