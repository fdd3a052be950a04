"""Select trainable parameters: add LoRA adapters, resume from a LoRA, or unfreeze all weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from tastemaker.backbones import Backbone
from tastemaker.backbones.lora.adapters import ADAPTER, START, add_lora, trainable
from tastemaker.backbones.lora.diffusers_file import LORA_FILE
from tastemaker.backbones.lora.layers import read_layers
from tastemaker.backbones.lora.weights import load_adapter
from tastemaker.config.training import LoraConfig, TrainConfig
from tastemaker.core.errors import TastemakerError
from tastemaker.training.preference.reference import (
    AdaptersOff,
    FrozenAdapter,
    FrozenCopy,
    Reference,
)


def add_text_adapters(config: TrainConfig, backbone: Backbone) -> None:
    """Put the LoRA on the text encoders, where one is asked for.

    Raises:
        TastemakerError: No layer has a target's name, or `start` adapts text encoders that do not
            train.
    """
    if config.text_lora is not None:
        for number, encoder in enumerate(backbone.text_encoders):
            _add_adapters(config, encoder, config.text_lora, part=f"text_encoder_{number}")
    elif config.start is not None and any(
        each.startswith("text_encoder") for each in read_layers(Path(config.start) / LORA_FILE)
    ):
        raise TastemakerError(
            f"train.start={config.start} adapts the text encoder too; give train.text_lora to"
            " train it along."
        )


def make_trainable(config: TrainConfig, backbone: Backbone) -> Reference:
    """Put the LoRA on the denoiser, or free all its weights; return the reference.

    Args:
        config: Method, adapters, start, reference and gradient checkpointing.
        backbone: The model, with the adapters of its text encoders.

    Returns:
        Where the reference's predictions come from.

    Raises:
        TastemakerError: No layer has a target's name, or `start` is a LoRA of other layers.
    """
    denoiser: Any = backbone.denoiser
    if config.method == "lora":
        _add_adapters(config, denoiser, config.lora)
    else:
        denoiser.requires_grad_(config.method == "full")
    if config.start is not None:
        for name in _adapter_names(config):
            load_adapter(backbone, Path(config.start), name)
    text_encoders = backbone.text_encoders if config.text_lora is not None else []
    # Here, because a copy is one of what training starts from: `start` is loaded by now.
    reference: Reference = AdaptersOff(backbone)
    if config.reference == "frozen_adapter":
        reference = FrozenAdapter(backbone)
    elif config.reference == "frozen_copy":
        reference = FrozenCopy(backbone, text_encoders)
    for network in (denoiser, *text_encoders):
        network.train()
    if config.gradient_checkpointing:
        denoiser.enable_gradient_checkpointing()
    return reference


def _adapter_names(config: TrainConfig) -> tuple[str, ...]:
    return (START, ADAPTER) if config.reference == "frozen_adapter" else (ADAPTER,)


def _add_adapters(config: TrainConfig, network: Any, lora: LoraConfig, part: str = "") -> None:
    """Put the LoRA that trains on a network, below it a frozen one where that is the reference."""
    for name in _adapter_names(config):
        own = lora if name == ADAPTER else lora.model_copy(update={"dropout": 0.0})
        add_lora(network, own, config.seed, name=name, part=part)


def weights(config: TrainConfig, backbone: Backbone) -> dict[str, torch.nn.Parameter]:
    """Return all parameters that train by name, the text encoders' under `text_encoder_0.` on."""
    found = trainable(backbone.denoiser)
    if config.text_lora is not None:
        for number, encoder in enumerate(backbone.text_encoders):
            found |= {f"text_encoder_{number}.{k}": v for k, v in trainable(encoder).items()}
    return found


def parameter_groups(
    config: TrainConfig, weights: dict[str, torch.nn.Parameter]
) -> list[dict[str, Any]]:
    """Split the weights by learning rate: `rate` is a group's share of the denoiser's.

    Args:
        config: Its learning rates.
        weights: From `weights`.

    Returns:
        Groups of an optimizer, none empty.
    """
    text = [value for name, value in weights.items() if name.startswith("text_encoder_")]
    rest = [value for name, value in weights.items() if not name.startswith("text_encoder_")]
    own = config.text_lora.learning_rate if config.text_lora else None
    groups = [
        {"params": rest, "rate": 1.0},
        {"params": text, "rate": (own or config.learning_rate) / config.learning_rate},
    ]
    return [group for group in groups if group["params"]]
