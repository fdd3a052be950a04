"""LoRA in and out in diffusers' form: layers by name, rank and alpha as metadata.

Text encoders keep their keys in the layout of transformers 4 (`text_model.encoder.layers...`),
which every diffusers reads; transformers 5 flattened the model and lost the prefix.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from tastemaker.core.errors import TastemakerError
from tastemaker.storage.files import read_json, write_json

POLICY = "policy"
"""Name of the newest LoRA of a loaded model: the one that was trained last."""

LORA_FILE = "pytorch_lora_weights.safetensors"
MODEL_FILE = "model.json"
"""Beside a trained LoRA or a learned word: the base that it belongs to."""

METADATA = "lora_adapter_metadata"
"""Key of rank and alpha in the header of diffusers' files."""

CLIP_PREFIX = "text_model."
"""Prefix of a CLIP text encoder's layers in files, which transformers 5 dropped."""


def name_base(base: str, output: Path) -> None:
    """Write which model a folder of adapters belongs to.

    Args:
        base: Name, hub id or folder; a folder is named by its absolute path.
        output: The folder.
    """
    place = os.path.abspath(base) if Path(base).is_dir() else base
    write_json(output / MODEL_FILE, {"base": place})


def base_of(adapter: Path) -> str:
    """Return the model that a LoRA or a learned word was put on.

    Raises:
        TastemakerError: The folder does not say.
    """
    marker = adapter / MODEL_FILE
    named = read_json(marker) if marker.is_file() else None
    base = named.get("base") if isinstance(named, dict) else None
    if not isinstance(base, str) or not base:
        raise TastemakerError(
            f"{adapter} is a LoRA whose {MODEL_FILE} is missing or names no base; write one:"
            ' {"base": "stable-diffusion-v1-5/stable-diffusion-v1-5"}.'
        )
    return base


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
        layers = convert_state_dict_to_diffusers(layers)
    return {prefix + key: layers[key].contiguous() for key in sorted(layers)}


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
