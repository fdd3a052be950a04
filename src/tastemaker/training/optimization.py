"""What every training has alike, whatever it learns from: accelerator, optimizer, gradients."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, DistributedType
from accelerate.utils import GradientAccumulationPlugin, TorchDynamoPlugin

from tastemaker.config.training import OptimisationConfig
from tastemaker.core.errors import TastemakerError
from tastemaker.core.hardware import processes, torch_device
from tastemaker.training.checkpoint import TrainState, last_good
from tastemaker.training.launch import FSDP2

MIXED = {"fp32": "no", "bf16": "bf16", "fp16": "fp16"}


def accelerator_for(
    config: OptimisationConfig, output: Path, tracker: str | None = None, *, splits: bool = True
) -> Accelerator:
    """Make the accelerator of a training.

    Args:
        config: Device, precision and accumulation.
        output: Where a tracker writes.
        tracker: Any that accelerate knows, or None.
        splits: Whether the training can split weights over processes.

    Returns:
        The accelerator.

    Raises:
        TastemakerError: accelerate refuses, or it was launched in a way that this training has not.
    """
    on_cpu = torch_device(config.device).type == "cpu"
    state = processes()
    elsewhere = (state.device.type == "cpu") != on_cpu
    if elsewhere and state.num_processes > 1:
        raise TastemakerError(
            f"device={config.device}, but the processes were launched for {state.device.type}:"
            " launch them with `accelerate launch --cpu`, or set device=auto."
        )
    # Precision and device are singletons of accelerate's; each training of a process has its own.
    AcceleratorState._reset_state(reset_partial_state=elsewhere)
    try:
        accelerator = Accelerator(
            cpu=on_cpu,
            mixed_precision=MIXED[config.dtype],
            # Said by plugins: accelerate would prefer what a launch put into the environment.
            gradient_accumulation_plugin=GradientAccumulationPlugin(
                config.gradient_accumulation_steps
            ),
            dynamo_plugin=TorchDynamoPlugin(backend="no"),
            log_with=tracker,
            project_dir=str(output),
        )
    except (ValueError, ImportError) as error:
        raise TastemakerError(
            f"accelerate refuses precision={config.dtype}, tracker={tracker}: {error}"
        ) from error
    refuse_engines(accelerator, splits=splits)
    return accelerator


def refuse_engines(accelerator: Accelerator, *, splits: bool) -> None:
    """Refuse a launch under which training would not be what it is on one process.

    Args:
        accelerator: As it was launched.
        splits: Whether the training can split weights over processes.

    Raises:
        TastemakerError: DeepSpeed, Megatron, the first FSDP, or weights split where they cannot be.
    """
    kind = accelerator.distributed_type
    if kind in {DistributedType.DEEPSPEED, DistributedType.MEGATRON_LM} or (
        kind == DistributedType.FSDP and not accelerator.is_fsdp2
    ):
        raise TastemakerError(
            f"launched with {kind.value.lower()}: weights are split by FSDP2 alone; launch with"
            f" --config_file {FSDP2}."
        )
    if accelerator.is_fsdp2 and not splits:
        raise TastemakerError(
            "align_prop cannot split weights, since a gradient passes the network several times;"
            " launch without FSDP2: every process then holds the whole model."
        )


def adamw(parameters: Iterable[Any], config: OptimisationConfig) -> torch.optim.AdamW:
    """Make the optimizer.

    Args:
        parameters: Parameters, or groups of them; a group's `rate` is its share of the learning
            rate, 1 where it is not given.
        config: Rate, moments, epsilon and weight decay.

    Returns:
        AdamW.
    """
    optimizer = torch.optim.AdamW(
        parameters,
        lr=config.learning_rate,
        betas=(config.adam_beta1, config.adam_beta2),
        eps=config.adam_epsilon,
        weight_decay=config.weight_decay,
    )
    for group in optimizer.param_groups:
        group.setdefault("rate", 1.0)
    return optimizer


@contextlib.contextmanager
def synced(
    accelerator: Accelerator, networks: Iterable[torch.nn.Module], *, last: bool
) -> Iterator[None]:
    """Let gradients cross processes with the last batch of an optimizer step alone.

    Args:
        accelerator: That wrapped the networks.
        networks: Those that train, as it wrapped them.
        last: Whether the block propagates the step's last batch.
    """
    with contextlib.ExitStack() as stack:
        if not last:
            for network in networks:
                stack.enter_context(accelerator.no_sync(network))
        yield


def clip_gradient(
    accelerator: Accelerator,
    state: TrainState,
    config: OptimisationConfig,
    *,
    step: int,
    checkpoints: Path,
    lower: str = "learning_rate",
) -> dict[str, float]:
    """Clip the gradient of all weights together.

    Args:
        accelerator: Unscales it first, under fp16.
        state: The weights, and the loss scaler if there is one.
        config: `max_grad_norm`.
        step: Optimizer steps done, for the message.
        checkpoints: Their folder, for the message.
        lower: Keys whose lower values keep the gradient finite, for the message.

    Returns:
        The metric `grad_norm`, from before clipping; nothing where an fp16 loss overflowed.

    Raises:
        TastemakerError: The gradient is not finite; the last checkpoint is named.
    """
    parameters = list(state.weights.values())
    norm = float(accelerator.clip_grad_norm_(parameters, config.max_grad_norm))
    if math.isfinite(norm):
        return {"grad_norm": norm}
    # Under fp16 an overflow is ordinary: the scaler skips the step and lowers its scale.
    if state.scaler is not None:
        return {}
    raise TastemakerError(
        f"step {step + 1}: the gradient is {norm}. Lower {lower}, or raise precision to"
        f" fp32. {last_good(checkpoints)}"
    )
