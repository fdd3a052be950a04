"""Combine LoRAs without training: on another model of their base, or in one file."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from tastemaker.backbones.identity import model_identity
from tastemaker.backbones.lora.layers import Layers, read_layers, write_layers
from tastemaker.backbones.places import LORA_FILE, MODEL_FILE, base_of, is_adapter, root_of
from tastemaker.backbones.textual_inversion import refuse_token
from tastemaker.core.errors import TastemakerError
from tastemaker.storage.artifact import Artifact, finished_key
from tastemaker.storage.files import atomic, write_json


def stack_adapter(lora: Path, on: Path, output: Path) -> Path:
    """Put a LoRA on top of another model of its base: both act.

    A preference LoRA on a personalised model, for instance. To see
    that the subject stays itself, `evaluate` with that model as its base and the scorer
    `image_similarity`.

    Args:
        lora: Folder of a LoRA, as `train` writes it.
        on: Such a folder of the same base, or a pipeline folder whose layers are that base's.
        output: Folder of the stacked model, usable as `model` anywhere. It names `on`, whose files
            stay where they are.

    Returns:
        `output`.

    Raises:
        TastemakerError: One is not a LoRA or model, they are of different bases, or the LoRA has a
            learned word.
    """
    if not (lora / LORA_FILE).is_file():
        raise TastemakerError(f"{lora} is not a LoRA: it has no {LORA_FILE}.")
    refuse_token(lora)
    adapted = is_adapter(on)
    if not adapted and not (on / "model_index.json").is_file():
        raise TastemakerError(
            f"{on} is not a model: it is neither a LoRA's folder nor a pipeline's."
        )
    below, other = root_of(str(lora)), root_of(str(on))
    if adapted and below != other:
        raise TastemakerError(
            f"{lora} is a LoRA of {below}, {on} of {other}; stack LoRAs of one base."
        )
    inputs = {"lora": model_identity(str(lora)), "on": model_identity(os.path.abspath(on))}
    artifact = Artifact(output, "stack", inputs)
    with artifact.claimed() as unfinished:
        if unfinished:
            with atomic(output / LORA_FILE) as temporary:
                shutil.copyfile(lora / LORA_FILE, temporary)
            write_json(output / MODEL_FILE, {"base": os.path.abspath(on)})
            artifact.finish()
    return output


def merge_adapters(folders: Sequence[Path], output: Path) -> Path:
    """Put LoRAs of different parts of one base into one file, e.g. U-Net and text encoder.

    Args:
        folders: Folders that `train` wrote, of one base.
        output: Folder of the merged LoRA, usable as `model` anywhere.

    Returns:
        `output`.

    Raises:
        TastemakerError: Two adapt the same layer, or belong to different bases, or one has a
            learned word.
    """
    artifact = Artifact(output, "merge", {"inputs": [finished_key(folder) for folder in folders]})
    with artifact.claimed() as unfinished:
        if unfinished:
            layers, base = _merged(folders)
            write_layers(layers, output)
            write_json(output / MODEL_FILE, {"base": base})
            artifact.finish(parts=len(folders))
    return output


def _merged(folders: Sequence[Path]) -> tuple[Layers, str]:
    bases = [base_of(folder) for folder in folders]
    layers: Layers = {}
    for folder, base in zip(folders, bases, strict=True):
        refuse_token(folder)
        if base != bases[0]:
            raise TastemakerError(
                f"{folder} is a LoRA of {base}, {folders[0]} of {bases[0]}; merge LoRAs of one"
                " base."
            )
        own = read_layers(folder / LORA_FILE)
        twice = sorted(set(own) & set(layers))
        if twice:
            raise TastemakerError(f"{folder} adapts {twice[0]}, and so does another; choose one.")
        layers |= own
    return layers, bases[0]
