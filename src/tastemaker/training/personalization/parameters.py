"""What of a model trains while it is personalised: adapters, all weights, a new word."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from tastemaker.backbones import Backbone
from tastemaker.backbones.lora.adapters import add_lora, trainable
from tastemaker.backbones.textual_inversion import add_token
from tastemaker.config.personalization import PersonalizeConfig


def free_text(config: PersonalizeConfig, backbone: Backbone) -> list[torch.nn.Parameter]:
    """Let train what shall of the text encoders.

    Args:
        config: All weights, a LoRA, or a word of its own.
        backbone: The model.

    Returns:
        The embeddings of a new word; none where there is no such word.

    Raises:
        TastemakerError: The word is known already, or no layer has a target's name.
    """
    for number, encoder in enumerate(backbone.text_encoders):
        encoder.requires_grad_(config.train_text_encoder)
        if config.text_lora is not None:
            add_lora(encoder, config.text_lora, config.seed, part=f"text_encoder_{number}")
        encoder.train()
    if config.token is None:
        return []
    initializer = config.token.initializer or config.class_name
    return add_token(
        backbone, config.identifier, initializer=initializer, vectors=config.token.vectors
    )


def free_denoiser(config: PersonalizeConfig, backbone: Backbone) -> None:
    """Put the LoRA on the denoiser, free all its weights, or hold it still.

    Args:
        config: Method, adapters and gradient checkpointing.
        backbone: The model.

    Raises:
        TastemakerError: No layer has a target's name.
    """
    denoiser: Any = backbone.denoiser
    denoiser.requires_grad_(config.method == "full")
    if config.method == "lora":
        add_lora(denoiser, config.lora, config.seed)
    denoiser.train()
    if config.gradient_checkpointing:
        denoiser.enable_gradient_checkpointing()


def personal_weights(
    backbone: Backbone, text_encoders: Sequence[torch.nn.Module]
) -> dict[str, torch.nn.Parameter]:
    """Return all parameters that train by name, the text encoders' under `text_encoder_0.` on.

    Args:
        backbone: The model.
        text_encoders: Those that train.

    Returns:
        The parameters, in order.
    """
    weights = trainable(backbone.denoiser)
    for number, encoder in enumerate(text_encoders):
        weights |= {f"text_encoder_{number}.{k}": v for k, v in trainable(encoder).items()}
    return weights
