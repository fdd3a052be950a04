"""Accelerator, model, trainable parameters, optimizer and learning rate of every training."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, DistributedType
from accelerate.utils import GradientAccumulationPlugin, TorchDynamoPlugin

from tastemaker.backbones import Backbone, load_backbone, student_warning, wrap_pipeline
from tastemaker.backbones.lora.adapters import adapted, trainable
from tastemaker.backbones.staged import load_staged
from tastemaker.config.personalization import PersonalizeConfig
from tastemaker.config.training import OptimisationConfig, TrainConfig
from tastemaker.core.errors import TastemakerError
from tastemaker.core.hardware import processes, torch_device
from tastemaker.training.warnings import warn

MIXED = {"fp32": "no", "bf16": "bf16", "fp16": "fp16"}
FSDP2 = Path(__file__).parent / "fsdp2.yaml"
"""Configuration for `accelerate launch --config_file`: every process keeps a part of the denoiser.

Set `num_processes` to the number of GPUs.
"""

TEXT = "text_encoder_"
"""Prefix of the names of the text encoders' parameters."""


def accelerator_for(
    config: OptimisationConfig, output: Path, tracker: str | None = None, *, shards: bool = True
) -> Accelerator:
    """Make the accelerator of a training.

    Args:
        config: Device, precision and accumulation.
        output: Where a tracker writes.
        tracker: Any that accelerate knows, or None.
        shards: Whether the training can shard weights over processes.

    Returns:
        The accelerator.

    Raises:
        TastemakerError: accelerate refuses, or the training does not support this launch.
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
            # As plugins: accelerate would prefer what a launch put into the environment.
            gradient_accumulation_plugin=GradientAccumulationPlugin(
                config.gradient_accumulation_steps
            ),
            dynamo_plugin=TorchDynamoPlugin(backend="no"),
            log_with=tracker,
            project_dir=str(output),
        )
    except (ValueError, ImportError) as error:
        raise TastemakerError(
            f"accelerate refuses dtype={config.dtype}, report_to={tracker}: {error}"
        ) from error
    refuse_engines(accelerator, shards=shards)
    return accelerator


def refuse_engines(accelerator: Accelerator, *, shards: bool) -> None:
    """Refuse a launch under which training would not be what it is on one process.

    Args:
        accelerator: As it was launched.
        shards: Whether the training can shard weights over processes.

    Raises:
        TastemakerError: DeepSpeed, Megatron, FSDP1, or FSDP2 where weights cannot be sharded.
    """
    kind = accelerator.distributed_type
    if kind in {DistributedType.DEEPSPEED, DistributedType.MEGATRON_LM} or (
        kind == DistributedType.FSDP and not accelerator.is_fsdp2
    ):
        raise TastemakerError(
            f"launched with {kind.value.lower()}: only FSDP2 can shard weights; launch with"
            f" --config_file {FSDP2}."
        )
    if accelerator.is_fsdp2 and not shards:
        raise TastemakerError(
            "align_prop cannot shard weights, since a gradient passes the network several times;"
            " launch without FSDP2: every process then keeps the whole model."
        )


def load_policy(
    config: OptimisationConfig, *, whole: bool = False, staged: bool = False
) -> Backbone:
    """Load the model to train, the LoRAs that it has already among its weights.

    Args:
        config: Model, device and precision of frozen weights.
        whole: All weights train: they stay in fp32.
        staged: Leave each part's weights until it is needed.
    """
    warn(student_warning(config.model))
    dtype = "fp32" if whole else config.dtype
    if staged:
        return load_staged(config.model, device=config.device, dtype=dtype)
    return load_backbone(config.model, device=config.device, dtype=dtype, fused=True)


def own_policy(model: Any) -> Backbone:
    """Take a loaded pipeline, or a backbone, to train.

    Raises:
        TastemakerError: It is something else, or carries the LoRA of an earlier training.
    """
    backbone = model if isinstance(model, Backbone) else wrap_pipeline(model)
    if adapted(backbone):
        raise TastemakerError(
            "the pipeline carries a LoRA; take it off with pipeline.unload_lora_weights(), or make"
            " it part of the weights with pipeline.fuse_lora() before that."
        )
    warn(student_warning(backbone))
    return backbone


def trainable_parameters(
    denoiser: torch.nn.Module, text_encoders: Sequence[torch.nn.Module] = ()
) -> dict[str, torch.nn.Parameter]:
    """Return all parameters that train by name, the text encoders' under `text_encoder_0.` on.

    Args:
        denoiser: A U-Net or a transformer.
        text_encoders: Those that train.

    Returns:
        The parameters, in order.
    """
    weights = trainable(denoiser)
    for number, encoder in enumerate(text_encoders):
        weights |= {f"{TEXT}{number}.{key}": value for key, value in trainable(encoder).items()}
    return weights


def text_rates(weights: Iterable[str], config: TrainConfig | PersonalizeConfig) -> dict[str, float]:
    """Return the learning rates of the text encoders' parameters, by name.

    Args:
        weights: Names from `trainable_parameters`.
        config: `text_lora.learning_rate`; the denoiser's where it is not given.
    """
    rate = config.text_lora.learning_rate if config.text_lora else None
    return {} if rate is None else {name: rate for name in weights if name.startswith(TEXT)}


def learning_rates(config: OptimisationConfig) -> list[float]:
    """Compute the learning rate of each step: linear warm-up, then constant or decaying.

    A step's rate depends on its number alone, so that resuming needs no scheduler state.

    Args:
        config: Peak rate, warm-up, schedule and number of steps.

    Returns:
        One rate per optimizer step; cosine and linear would reach 0 one step after the last.

    Example:
        >>> options = {"max_steps": 4, "learning_rate": 1.0, "lr_scheduler": "linear"}
        >>> learning_rates(OptimisationConfig(model="m", **options))
        [1.0, 0.75, 0.5, 0.25]
    """
    peak, warmup, steps = config.learning_rate, config.warmup_steps, config.max_steps
    factors: dict[str, Callable[[float], float]] = {
        "constant": lambda progress: 1.0,
        "linear": lambda progress: 1.0 - progress,
        "cosine": lambda progress: 0.5 * (1.0 + math.cos(math.pi * progress)),
    }
    factor = factors[config.lr_scheduler]
    rising = [peak * (step + 1) / (warmup + 1) for step in range(min(warmup, steps))]
    after = range(steps - warmup)
    return rising + [peak * factor(step / (steps - warmup)) for step in after]


def adamw(
    weights: Mapping[str, torch.nn.Parameter],
    config: OptimisationConfig,
    rates: Mapping[str, float] | None = None,
) -> torch.optim.AdamW:
    """Make the optimizer.

    Args:
        weights: Parameters by name.
        config: Rate, moments, epsilon and weight decay.
        rates: Peak learning rates of parameters that have one of their own.

    Returns:
        AdamW; the `rate` of a group is its share of the learning rate.
    """
    groups: dict[float, list[torch.nn.Parameter]] = {}
    for name, parameter in weights.items():
        rate = (rates or {}).get(name, config.learning_rate)
        groups.setdefault(rate / config.learning_rate, []).append(parameter)
    return torch.optim.AdamW(
        [{"params": each, "rate": rate} for rate, each in groups.items()],
        lr=config.learning_rate,
        betas=(config.adam_beta1, config.adam_beta2),
        eps=config.adam_epsilon,
        weight_decay=config.weight_decay,
        fused=True,
    )
