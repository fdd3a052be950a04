"""What of a model trains: adapters put on, an earlier LoRA carried on, the parameters by name."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from tastemaker.backbones import Backbone
from tastemaker.errors import TastemakerError
from tastemaker.train.adapters import ADAPTER, START, adapters_off, add_lora, trainable
from tastemaker.train.reference import (
    AdaptersOff,
    FrozenAdapter,
    FrozenCopy,
    Itself,
    Reference,
)
from tastemaker.training_sections import TrainConfig


def add_text_adapters(config: TrainConfig, backbone: Backbone) -> None:
    """Put the LoRA on the text encoders, where one is asked for, with the weights of `start`.

    Raises:
        TastemakerError: `start` does not fit, or adapts text encoders that do not train.
    """
    if config.text_lora is not None:
        for number, encoder in enumerate(backbone.text_encoders):
            add_lora(encoder, config.text_lora, config.seed, part=f"text_encoder_{number}")
            encoder.train()
    elif config.start is not None and any(
        part.startswith("text_encoder") for part in backbone.adapted_parts(Path(config.start))
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
    reference: Reference = AdaptersOff(backbone)
    if config.reference == "frozen_copy":
        reference = FrozenCopy(backbone)
    if config.method == "full":
        denoiser.requires_grad_(True)
    elif config.method == "frozen":
        denoiser.requires_grad_(False)
        reference = Itself(backbone)
    else:
        if config.reference == "frozen_adapter":
            still = config.lora.model_copy(update={"dropout": 0.0})
            add_lora(denoiser, still, config.seed, name=START)
            reference = FrozenAdapter(backbone)
        add_lora(denoiser, config.lora, config.seed)
    if config.start is not None:
        for name in (ADAPTER, START) if config.reference == "frozen_adapter" else (ADAPTER,):
            backbone.load_adapter(Path(config.start), name)
    denoiser.train()
    if config.gradient_checkpointing:
        denoiser.enable_gradient_checkpointing()
    return reference


@contextlib.contextmanager
def as_reference(config: TrainConfig, backbone: Backbone) -> Iterator[None]:
    """Run the block with the text encoders as the reference has them."""
    with contextlib.ExitStack() as stack:
        if config.text_lora is not None and config.reference != "frozen_adapter":
            for encoder in backbone.text_encoders:
                stack.enter_context(adapters_off(encoder))
        yield


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
