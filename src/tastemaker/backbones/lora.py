"""LoRA in and out in diffusers' form: layers by name, rank and alpha as metadata.

Text encoders keep their keys in the layout of transformers 4 (`text_model.encoder.layers...`),
which every diffusers reads; transformers 5 flattened the model and lost the prefix.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from tastemaker.backbones.tokens import refuse_token
from tastemaker.errors import TastemakerError
from tastemaker.files import read_record, write_json, write_tensors
from tastemaker.records import Stage, finished_key

POLICY = "policy"
"""Name of the newest LoRA of a loaded model: the one that was trained last."""

LORA_FILE = "pytorch_lora_weights.safetensors"
MODEL_FILE = "model.json"
"""Beside a trained LoRA or a learned word: the base that it belongs to."""

METADATA = "lora_adapter_metadata"
"""Where diffusers keeps rank and alpha in the file's header."""

OUTER = "text_model."


def name_base(base: str, output: Path) -> None:
    """Write which model a folder of adapters belongs to.

    Args:
        base: Name, hub id or folder; a folder is named by its absolute path.
        output: The folder.
    """
    place = os.path.abspath(base) if Path(base).is_dir() else base
    write_json(output / MODEL_FILE, {"base": place})


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

    prefix = OUTER if _flattened(module) else ""
    layers = get_peft_model_state_dict(module, adapter_name=adapter)
    if not peft:
        layers = convert_state_dict_to_diffusers(layers)
    return {prefix + key: layers[key].contiguous() for key in sorted(layers)}


def lora_metadata(module: Any, adapter: str) -> dict[str, Any]:
    """Return rank, alpha and targets of an adapter, JSON-like, the same on every run."""
    options: dict[str, Any] = module.peft_config[adapter].to_dict()
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


def load_lora(
    module: Any,
    adapter: str,
    layers: Mapping[str, torch.Tensor],
    metadata: Mapping[str, Any],
    folder: Path,
) -> None:
    """Give an adapter that is put on the weights of a file.

    Args:
        module: The network that carries the adapter.
        adapter: Its name.
        layers: Weights by the names that files have.
        metadata: The file's rank and alpha; empty where it has none.
        folder: Where they are from, for messages.

    Raises:
        TastemakerError: Other layers, shapes or alpha than the adapter's.
    """
    from diffusers.utils import convert_state_dict_to_peft, convert_unet_state_dict_to_peft
    from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict

    given = dict(layers)
    if any("lora_linear_layer" in key for key in given):  # how diffusers writes text encoders
        given = convert_state_dict_to_peft(given)
    elif any(".lora.down." in key for key in given):  # and how it writes U-Nets
        given = convert_unet_state_dict_to_peft(given)
    if _flattened(module):
        given = {key.removeprefix(OUTER): value for key, value in given.items()}
    held = get_peft_model_state_dict(module, adapter_name=adapter)
    if {key: value.shape for key, value in given.items()} != {
        key: value.shape for key, value in held.items()
    }:
        raise TastemakerError(
            f"the LoRA in {folder} does not fit {type(module).__name__} with"
            f" {_form(held)}: the file has {_form(given)}. Set lora.rank and lora.targets as it was"
            " trained, or take the base that it belongs to."
        )
    alpha = module.peft_config[adapter].lora_alpha
    if metadata.get("lora_alpha", alpha) != alpha:
        raise TastemakerError(
            f"the LoRA in {folder} was trained with alpha {metadata['lora_alpha']}, not {alpha};"
            " set lora.alpha to it."
        )
    set_peft_model_state_dict(module, given, adapter_name=adapter)


def merge_adapters(folders: Sequence[Path], output: Path) -> Path:
    """Put LoRAs of different parts of one base into one file, e.g. U-Net and text encoder.

    Args:
        folders: What `train` wrote, of one base.
        output: Folder of the merged LoRA, usable as `model` anywhere.

    Returns:
        `output`.

    Raises:
        TastemakerError: Two adapt the same layer, or belong to different bases, or one has a
            learned word.
    """
    stage = Stage(output, "merge", {"inputs": [finished_key(folder) for folder in folders]})
    with stage.claimed() as unfinished:
        if unfinished:
            _merge(folders, output)
            stage.finish(parts=len(folders))
    return output


def _merge(folders: Sequence[Path], output: Path) -> None:
    bases = [read_record(folder / MODEL_FILE, base=str) for folder in folders]
    layers: dict[str, torch.Tensor] = {}
    metadata: dict[str, Any] = {}
    for folder, base in zip(folders, bases, strict=True):
        refuse_token(folder)
        if base != bases[0]:
            raise TastemakerError(
                f"{folder} is a LoRA of {base['base']}, {folders[0]} of {bases[0]['base']};"
                " merge LoRAs of one base."
            )
        with safe_open(folder / LORA_FILE, framework="pt") as stored:
            state = {key: stored.get_tensor(key) for key in stored.keys()}  # noqa: SIM118
            metadata |= json.loads((stored.metadata() or {}).get(METADATA, "{}"))
        twice = sorted(set(state) & set(layers))
        if twice:
            raise TastemakerError(f"{folder} adapts {twice[0]}, and so does another; choose one.")
        layers |= state
    write_tensors(output / LORA_FILE, layers, {"format": "pt", METADATA: json.dumps(metadata)})
    write_json(output / MODEL_FILE, bases[0])


def _flattened(module: Any) -> bool:
    """Whether this is a text encoder in the layout of transformers 5."""
    names = {name for name, _ in module.named_children()}
    return {"embeddings", "encoder"} <= names


def _form(state: Mapping[str, torch.Tensor]) -> str:
    ranks = sorted({value.shape[0] for key, value in state.items() if "lora_A" in key})
    return f"{len(state)} tensors of rank {', '.join(map(str, ranks)) or 'none'}"
