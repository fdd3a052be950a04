"""LoRA on a denoiser: put on, switched off for the reference, counted."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

from tastemaker.errors import TastemakerError
from tastemaker.sections import LoraConfig
from tastemaker.seeding import keyed_seed

ADAPTER = "policy"


def add_lora(denoiser: Any, config: LoraConfig, seed: int) -> None:
    """Freeze a denoiser and put a trainable LoRA on it, which starts as the identity.

    Args:
        denoiser: A diffusers model with PEFT support.
        config: Rank, alpha, dropout and target layers.
        seed: Seed of the random factor A (B starts at zero).

    Raises:
        TastemakerError: No layer has one of the target names.
    """
    from peft import LoraConfig as PeftLoraConfig

    names = [name for name, _ in denoiser.named_modules()]
    for target in config.targets:
        if not any(name == target or name.endswith(f".{target}") for name in names):
            raise TastemakerError(
                f"lora.targets: no layer of {type(denoiser).__name__} is named {target!r};"
                " attention layers are to_q, to_k, to_v, to_out.0."
            )
    denoiser.requires_grad_(False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(keyed_seed(seed, "lora"))
        denoiser.add_adapter(
            PeftLoraConfig(
                r=config.rank,
                lora_alpha=config.rank if config.alpha is None else config.alpha,
                lora_dropout=config.dropout,
                target_modules=list(config.targets),
                init_lora_weights="gaussian",
            ),
            adapter_name=ADAPTER,
        )
    for parameter in denoiser.parameters():
        if parameter.requires_grad:
            # Adapters stay in fp32 whatever the frozen weights are: updates of 1e-5 vanish in bf16.
            parameter.data = parameter.data.float()


@contextlib.contextmanager
def adapters_off(denoiser: Any) -> Iterator[None]:
    """Run the block with the model as it was before `add_lora`.

    To be left before the policy's forward pass: toggled between a forward and its backward pass,
    PEFT's switch upsets compiled and distributed models.
    """
    denoiser.disable_adapters()
    try:
        yield
    finally:
        denoiser.enable_adapters()


def trainable(denoiser: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """Return the parameters that train, by name, in order."""
    return {name: p for name, p in denoiser.named_parameters() if p.requires_grad}
