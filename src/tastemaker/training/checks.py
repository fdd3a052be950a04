"""Checks of machine and model before a training begins."""

from __future__ import annotations

from tastemaker.config.personalization import PersonalizeConfig
from tastemaker.config.training import OptimisationConfig, TrainConfig
from tastemaker.core.errors import TastemakerError
from tastemaker.core.hardware import torch_device
from tastemaker.preflight import check_loading


def check_training(config: OptimisationConfig) -> None:
    """Check a training before its first step, on a model without weights.

    Args:
        config: Of a training on pairs, on photographs or on a scorer's gradient.

    Raises:
        TastemakerError: The precision needs another device, torch cannot compile here, a target
            is not a layer of the model, or a loss, a credit scheme, a size or the LoRA in `start`
            does not fit.
    """
    from tastemaker.backbones import check_compile, check_model
    from tastemaker.backbones.lora.adapters import check_targets

    check_loading(config)
    if config.dtype == "fp16" and torch_device(config.device).type != "cuda":
        raise TastemakerError("dtype=fp16 needs a CUDA GPU; take bf16 or fp32 here.")
    backbone = check_model(config.model)
    if config.torch_compile:
        check_compile(backbone.denoiser, torch_device(config.device))
    if getattr(config, "method", "lora") == "lora":
        check_targets(backbone.denoiser, config.lora)
    text_lora = getattr(config, "text_lora", None)
    if text_lora is not None:
        for encoder in backbone.text_encoders:
            check_targets(encoder, text_lora)
    if isinstance(config, TrainConfig):
        _check_preference(config)
    if isinstance(config, PersonalizeConfig):
        backbone.latent_shape(config.resolution, config.resolution)


def _check_preference(config: TrainConfig) -> None:
    """Build losses, credit scheme and, above the LoRA in `start`, adapters."""
    import torch

    from tastemaker.backbones import check_model
    from tastemaker.backbones.meta_device import load_skeleton
    from tastemaker.training.preference.parameters import add_text_adapters, make_trainable
    from tastemaker.training.preference.terms import build_credit, build_losses

    build_losses(config)
    build_credit(config, check_model(config.model))
    if config.start is not None:
        skeleton = load_skeleton(config.model)
        with torch.device("meta"):
            add_text_adapters(config, skeleton)
            make_trainable(config, skeleton)
