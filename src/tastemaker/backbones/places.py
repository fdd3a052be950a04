"""Names and folders of models, of which no weights are read."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath
from typing import Any

from tastemaker.config.sections import IPAdapterConfig
from tastemaker.core.errors import TastemakerError
from tastemaker.core.hub import hub_file
from tastemaker.core.registry import MODELS
from tastemaker.storage.files import read_json, write_json

INDEX = "model_index.json"
"""Of a pipeline: the class of each part."""

LORA_FILE = "pytorch_lora_weights.safetensors"
MODEL_FILE = "model.json"
"""Beside a trained LoRA or a learned word: the base that it belongs to."""

TOKEN_FILE = "learned_embeds.safetensors"
"""File name that diffusers' `load_textual_inversion` looks for in a folder."""

FAMILIES = {
    "StableDiffusionPipeline": "tastemaker.backbones.unet:UNetBackbone",
    "StableDiffusionXLPipeline": "tastemaker.backbones.sdxl:SDXLBackbone",
    "StableDiffusion3Pipeline": "tastemaker.backbones.flow:SD3Backbone",
    "FluxPipeline": "tastemaker.backbones.flux:FluxBackbone",
}
"""Class of a pipeline to the class of its backbone."""

SINGLE_FILES = (".safetensors", ".ckpt", ".pt", ".pth", ".bin", ".gguf")


def resolve(model: str) -> str:
    """Turn a registered model name into its folder; leave hub ids and folders as they are."""
    return str(MODELS.entry(model)()) if model in MODELS else model


def is_adapter(folder: Path) -> bool:
    """Return whether a folder is an adapter on a base: a LoRA, a learned word, or both."""
    return any((folder / name).is_file() for name in (LORA_FILE, TOKEN_FILE))


def adapter_chain(model: str) -> tuple[list[Path], str]:
    """Return the adapters that a model consists of, and the pipeline below them.

    Args:
        model: Name, hub id, pipeline folder or adapter's folder.

    Returns:
        Folders of adapters, the lowest first, and name, hub id or folder of the pipeline.

    Raises:
        TastemakerError: A folder names no base, or they name one another.
    """
    folders: list[Path] = []
    # Resolved first: a folder here does not hide a registered model of its name.
    while is_adapter(folder := Path(resolve(model))):
        if any(folder.resolve() == above.resolve() for above in folders):
            raise TastemakerError(
                f"{folder} lies on itself; name its right base in {folders[0] / MODEL_FILE}."
            )
        folders.insert(0, folder)
        model = base_of(folder)
    return folders, model


def root_of(model: str) -> str:
    """Return the pipeline below a LoRA, and below those that it was put on."""
    return adapter_chain(model)[1]


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


def ip_adapter_parts(config: IPAdapterConfig) -> tuple[str, str]:
    """Return the places of an IP-Adapter's weights and of its image encoder inside its model.

    Example:
        >>> from tastemaker.config.sections import IPAdapterConfig
        >>> ip_adapter_parts(IPAdapterConfig.model_validate("h94/IP-Adapter/models/a.safetensors"))
        ('models/a.safetensors', 'models/image_encoder')
    """
    weights = PurePosixPath(config.subfolder, config.weight_name)
    encoder = config.image_encoder_folder
    # As diffusers reads it: a path is one of the whole model.
    place = PurePosixPath(encoder) if "/" in encoder else weights.parent / encoder
    return weights.as_posix(), place.as_posix()


def index_of(model: str) -> dict[str, Any]:
    """Read the model_index.json of a pipeline of a known family.

    Args:
        model: A registered name, a hub id or a pipeline folder.

    Raises:
        TastemakerError: The model is missing, broken, or of an unknown family.
    """
    place = resolve(model)
    _check_place(model, place)
    index = read_part(place, INDEX)
    family = index.get("_class_name")
    if family not in FAMILIES:
        raise TastemakerError(
            f"{model} is a {family}; this version knows {', '.join(sorted(FAMILIES))}."
        )
    return index


def read_part(place: str, name: str) -> dict[str, Any]:
    """Read a configuration file of a pipeline.

    Args:
        place: Pipeline folder or hub id.
        name: Path of the file inside it.

    Returns:
        Its content.

    Raises:
        TastemakerError: It is missing, torn or not a JSON object, or the hub does not give it.
    """
    folder = Path(place)
    file = folder / name if folder.is_dir() else hub_file(place, place, name)
    if not file.is_file():
        raise TastemakerError(
            f"{place} is not whole: {name} is missing; save or download the model again."
        )
    content = read_json(file)
    if not isinstance(content, dict):
        raise TastemakerError(
            f"{file} is broken: it is not a JSON object; save or download the model again."
        )
    return content


def _check_place(model: str, place: str) -> None:
    """Refuse what is neither a pipeline folder nor can be a hub id, by what it is."""
    path = Path(place)
    if path.is_dir():
        if not (path / INDEX).is_file():
            raise TastemakerError(
                f"{model} is not a model: it has neither {INDEX} (a pipeline) nor"
                f" {LORA_FILE} (a LoRA)."
            )
    elif path.is_file() or path.suffix in SINGLE_FILES:
        if not path.is_file():
            raise TastemakerError(f"model {model!r} does not exist: no such file.")
        raise TastemakerError(
            f"{model} is a single-file checkpoint or a LoRA, and pipeline folders are read. Convert"
            " a checkpoint once, with its family's class (StableDiffusionPipeline,"
            " StableDiffusionXLPipeline, ...):"
            f' python -c "from diffusers import StableDiffusionPipeline as P;'
            f" P.from_single_file({place!r}).save_pretrained('FOLDER')\"; a LoRA: tastemaker"
            f" import FOLDER lora={place} model=BASE."
        )
    elif place.count("/") != 1 or place.startswith((".", "/", "~")):
        raise TastemakerError(
            f"model {model!r} does not exist: no such folder, and no hub id has that form."
            f" Named models: {', '.join(MODELS.names())}."
        )
