"""LoRA adapters of a network: added, switched off or exchanged for the reference."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from tastemaker.backbones.lora.diffusers_file import POLICY
from tastemaker.config.training import LoraConfig, TextLoraConfig
from tastemaker.core.errors import TastemakerError
from tastemaker.core.seeding import keyed_seed

if TYPE_CHECKING:
    from tastemaker.backbones.base import Backbone

ADAPTER = POLICY
"""The LoRA that trains."""

START = "start"
"""A frozen copy of the LoRA that training started from."""


def check_targets(module: torch.nn.Module, config: LoraConfig) -> None:
    """Make sure that a network has the layers that get adapters.

    Raises:
        TastemakerError: No layer has one of the target names.
    """
    section = "text_lora" if isinstance(config, TextLoraConfig) else "lora"
    names = [each for each, _ in module.named_modules()]
    for target in config.target_modules:
        if not any(each == target or each.endswith(f".{target}") for each in names):
            raise TastemakerError(
                f"{section}.target_modules: no layer of {type(module).__name__} is named"
                f" {target!r}; attention layers are to_q, to_k, to_v, to_out.0 in a denoiser,"
                " q_proj, k_proj, v_proj, out_proj in a text encoder."
            )


def add_lora(
    module: Any, config: LoraConfig, seed: int, *, name: str = ADAPTER, part: str = ""
) -> None:
    """Freeze a network and put a trainable LoRA on it, which starts as the identity.

    Args:
        module: A diffusers denoiser or a transformers text encoder.
        config: Rank, alpha, dropout and target layers.
        seed: Seed of the random factor A (B starts at zero).
        name: Name of the adapter; the last one put on is active.
        part: Of the model, to key the seed; empty for the denoiser.

    Raises:
        TastemakerError: No layer has one of the target names.
    """
    from peft import LoraConfig as PeftLoraConfig

    check_targets(module, config)
    module.requires_grad_(False)
    keys = ("lora", part) if part else ("lora",)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(keyed_seed(seed, *keys))
        module.add_adapter(
            PeftLoraConfig(
                r=config.r,
                lora_alpha=config.r if config.alpha is None else config.alpha,
                lora_dropout=config.dropout,
                target_modules=list(config.target_modules),
                init_lora_weights="gaussian",
            ),
            adapter_name=name,
        )
    for parameter in module.parameters():
        if parameter.requires_grad:
            # Adapters stay in fp32 whatever the frozen weights are: updates of 1e-5 vanish in bf16.
            parameter.data = parameter.data.float()


def has_adapter(network: Any, name: str = POLICY) -> bool:
    """Return whether a network carries a LoRA of that name; a released network has none."""
    return name in getattr(network, "peft_config", {})


def adapted(backbone: Backbone) -> list[torch.nn.Module]:
    """Return the networks of a model, denoiser and text encoders, that carry a LoRA."""
    networks = (backbone.denoiser, *backbone.text_encoders)
    return [each for each in networks if getattr(each, "peft_config", None)]


def trainable(module: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """Return the parameters that train, by name, in order."""
    return {name: p for name, p in module.named_parameters() if p.requires_grad}
