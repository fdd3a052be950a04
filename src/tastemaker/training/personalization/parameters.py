"""Select trainable parameters of a personalisation: adapters, all weights, a new word."""

from __future__ import annotations

from typing import Any

import torch

from tastemaker.backbones import Backbone
from tastemaker.backbones.lora.adapters import add_lora
from tastemaker.backbones.staged import load_parts
from tastemaker.backbones.textual_inversion import add_token
from tastemaker.config.personalization import PersonalizeConfig
from tastemaker.training.personalization.singular_values import train_singular_values


def free_text(config: PersonalizeConfig, backbone: Backbone) -> list[torch.nn.Parameter]:
    """Unfreeze or adapt the text encoders, where they train.

    Args:
        config: All weights, a LoRA, or a word of its own.
        backbone: The model.

    Returns:
        The embeddings of a new word; none without `token`.

    Raises:
        TastemakerError: The word is known already, or no layer has a target's name.
    """
    if not config.trains_text:
        return []
    load_parts(backbone, backbone.text_parts)
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
    """Put the LoRA on the denoiser, unfreeze its weights or singular values, or freeze it.

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
    if config.method == "svdiff":
        train_singular_values(denoiser)
    denoiser.train()
    if config.gradient_checkpointing:
        denoiser.enable_gradient_checkpointing()
