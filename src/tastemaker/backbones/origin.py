"""Family of a LoRA file, by the names of its layers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from tastemaker.backbones.lora.originals import is_sdxl

SD, SDXL, SD3, FLUX = "Stable Diffusion 1 or 2", "Stable Diffusion XL", "SD3", "FLUX.1"

SIGNS: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = (
    ((r"transformer_blocks_\d+_(img|txt)_(mlp|mod)",), ("Qwen-Image",)),
    ((r"single_transformer_blocks_\d", r"single_stream_modulation"), ("FLUX.2",)),
    ((r"single_transformer_blocks_\d|(double|single)_blocks_\d",), (FLUX,)),
    ((r"joint_blocks_\d",), (SD3,)),
    ((r"(^|_)transformer_blocks_\d", r"^(text_encoder|lora_te)_?2_text_model"), (SD3,)),
    ((r"^(lora_unet_|diffusion_model_)?blocks_\d+_(self|cross)_attn",), ("Wan",)),
    ((r"(down|up)_blocks_\d_attentions_\d_transformer_blocks_[1-9]",), (SDXL,)),
    ((r"(input|output|down|up)_blocks_\d", r"^(text_encoder|lora_te)_?2_"), (SDXL,)),
    ((r"(down_blocks_0|up_blocks_3)_attentions",), (SD,)),
    ((r"(input|output|down|up)_blocks_\d|mid(dle)?_block",), (SD, SDXL)),
    ((r"^(base_model_)?(model_)*layers_\d+_(self_attn|mlp)_",), ("a language model",)),
)
"""Names that a file has, all of these patterns, and the families that have them; surest first."""


def origins_of(names: Iterable[str]) -> tuple[str, ...]:
    """Return the families that a file's names point to; empty if they are ambiguous.

    Args:
        names: Of layers, with `_` for `.`.

    Example:
        >>> origins_of(["lora_unet_double_blocks_0_img_attn_proj"])
        ('FLUX.1',)
        >>> origins_of(["lora_unet_down_blocks_1_attentions_0_proj_in"])
        ('Stable Diffusion 1 or 2', 'Stable Diffusion XL')
        >>> origins_of(["style"])
        ()
    """
    given = list(names)
    for patterns, families in SIGNS:
        if all(any(re.search(pattern, name) for name in given) for pattern in patterns):
            return families
    return ()


def family_of(networks: Mapping[str, Any]) -> str:
    """Return the family of a model in the words of `origins_of`.

    Args:
        networks: Of its pipeline, by name.
    """
    if "unet" in networks:
        return SDXL if is_sdxl(networks["unet"]) else SD
    return FLUX if type(networks["transformer"]).__name__.startswith("Flux") else SD3
