"""LoRA in and out in diffusers' form: layers by name, rank and alpha as metadata.

Text encoders keep their keys in the layout of transformers 4 (`text_model.encoder.layers...`),
which every diffusers reads; transformers 5 flattened the model and lost the prefix.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

POLICY = "policy"
"""Name of the newest LoRA of a loaded model: the one that was trained last."""

METADATA = "lora_adapter_metadata"
"""Key of rank and alpha in the header of diffusers' files."""

CLIP_PREFIX = "text_model."
"""Prefix of a CLIP text encoder's layers in files, which transformers 5 dropped."""


def lora_layers(module: Any, adapter: str, *, peft: bool = False) -> dict[str, torch.Tensor]:
    """Return an adapter's weights by the names that files have, sorted.

    Args:
        module: A denoiser or text encoder that carries the adapter.
        adapter: Its name.
        peft: Call the factors `lora_A` and `lora_B`, as files of transformers do.

    Returns:
        Contiguous tensors.
    """
    from diffusers.utils import convert_state_dict_to_diffusers
    from peft.utils import get_peft_model_state_dict

    prefix = CLIP_PREFIX if flattened(module) else ""
    layers = get_peft_model_state_dict(module, adapter_name=adapter)
    if not peft:
        layers = _of_one_dialect(convert_state_dict_to_diffusers(layers))
    return {prefix + key: layers[key].contiguous() for key in sorted(layers)}


def _of_one_dialect(layers: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Name all factors of a U-Net as those of its attention, where diffusers renames these alone.

    Of a file whose first key is PEFT's, e.g. a convolution's, diffusers reads no other dialect: the
    attention's layers would be lost.
    """
    if not any(key.endswith(".lora.down.weight") for key in layers):
        return layers
    return {
        key.replace(".lora_A.", ".lora.down.").replace(".lora_B.", ".lora.up."): value
        for key, value in layers.items()
    }


def lora_metadata(module: Any, adapter: str) -> dict[str, Any]:
    """Return rank, alpha and targets of an adapter, JSON-like, the same on every machine."""
    options: dict[str, Any] = module.peft_config[adapter].to_dict()
    options["base_model_name_or_path"] = None  # of a text encoder it is where its folder lies
    # Sets have no order of their own; sorted, the file has the same bytes on every run.
    return {
        key: sorted(value) if isinstance(value, set) else value for key, value in options.items()
    }


def part_of(values: Mapping[str, Any], part: str) -> dict[str, Any]:
    """Return the entries of one part of a pipeline, without its prefix."""
    return {
        key.removeprefix(f"{part}."): value
        for key, value in values.items()
        if key.startswith(f"{part}.")
    }


def flattened(module: Any) -> bool:
    """Return whether a text encoder has the layout of transformers 5."""
    names = {name for name, _ in module.named_children()}
    return {"embeddings", "encoder"} <= names
