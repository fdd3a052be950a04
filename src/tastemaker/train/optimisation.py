"""What every training has alike, whatever it learns from: an accelerator and an optimizer."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from tastemaker.errors import TastemakerError
from tastemaker.hardware import processes, torch_device
from tastemaker.training_sections import OptimisationConfig

MIXED = {"fp32": "no", "bf16": "bf16", "fp16": "fp16"}


def accelerator_for(
    config: OptimisationConfig, output: Path, tracker: str | None = None
) -> Accelerator:
    """Make the accelerator of a training.

    Args:
        config: Device, precision and accumulation.
        output: Where a tracker writes.
        tracker: Any that accelerate knows, or None.

    Returns:
        The accelerator.

    Raises:
        TastemakerError: The precision needs another device, or accelerate refuses.
    """
    if config.precision == "fp16" and torch_device(config.device).type != "cuda":
        raise TastemakerError("train.precision=fp16 needs a CUDA GPU; take bf16 or fp32 here.")
    processes()
    # Precision is a singleton of accelerate's; each training run of a process has its own.
    AcceleratorState._reset_state()
    try:
        return Accelerator(
            cpu=config.device == "cpu",
            mixed_precision=MIXED[config.precision],
            gradient_accumulation_steps=config.gradient_accumulation,
            log_with=tracker,
            project_dir=str(output),
        )
    except (ValueError, ImportError) as error:
        raise TastemakerError(
            f"accelerate refuses precision={config.precision}, tracker={tracker}: {error}"
        ) from error


def adamw(parameters: Iterable[Any], config: OptimisationConfig) -> torch.optim.AdamW:
    """Make the optimizer.

    Args:
        parameters: Parameters, or groups of them.
        config: Rate, moments, epsilon and weight decay.

    Returns:
        AdamW.
    """
    return torch.optim.AdamW(
        parameters,
        lr=config.learning_rate,
        betas=config.adam_betas,
        eps=config.adam_epsilon,
        weight_decay=config.weight_decay,
    )
