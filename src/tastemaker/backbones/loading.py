"""From a name, hub id or folder to a backbone; its family stands in the pipeline's own config."""

from __future__ import annotations

import importlib
import json
import warnings
from pathlib import Path
from typing import Any

from tastemaker.backbones.base import Backbone
from tastemaker.backbones.lora import LORA_FILE, MODEL_FILE
from tastemaker.backbones.tokens import TOKEN_FILE
from tastemaker.errors import TastemakerError
from tastemaker.files import read_json
from tastemaker.hardware import torch_device, torch_dtype
from tastemaker.records import finished_key
from tastemaker.registry import MODELS

FAMILIES = {
    "StableDiffusionPipeline": "tastemaker.backbones.unet:UNetBackbone",
    "StableDiffusionXLPipeline": "tastemaker.backbones.sdxl:SDXLBackbone",
    "StableDiffusion3Pipeline": "tastemaker.backbones.flow:SD3Backbone",
    "FluxPipeline": "tastemaker.backbones.flux:FluxBackbone",
}


def resolve(model: str) -> str:
    """Turn a registered model name into its folder; leave hub ids and folders alone."""
    return str(MODELS.entry(model)()) if model in MODELS else model


def model_identity(model: str) -> dict[str, str]:
    """Describe a model for the key of a stage, so that a retrained folder is not mistaken.

    Args:
        model: Name, hub id or folder.

    Returns:
        Its name, and the key of the stage that trained it where this package did.
    """
    folder = Path(model)
    if (folder / "done.json").is_file():
        return {"model": model, "key": finished_key(folder)}
    return {"model": model}


def load_backbone(
    model: str, *, device: str = "auto", dtype: str = "fp32", scheduler: str | None = None
) -> Backbone:
    """Load a model by name, hub id, pipeline folder or trained LoRA folder.

    Args:
        model: A registered name ("nano"), a hub id, a pipeline folder, or a folder that `train`
            or `personalize` wrote: then its base is loaded, and LoRA and learned word put on. The
            base may itself be such a folder (a policy trained in rounds): the earlier LoRAs are
            then fused.
        device: "auto", "cpu", "cuda" or "mps".
        dtype: "fp32", "bf16" or "fp16".
        scheduler: A diffusers scheduler class; None keeps the model's own.

    Returns:
        The backbone, in evaluation mode.

    Raises:
        TastemakerError: The model is missing, broken, or of an unknown family.
    """
    backbone: Backbone
    folder = Path(model)
    if is_adapter(folder):
        backbone = load_backbone(base_of(folder), device=device, dtype=dtype)
        backbone.fuse_adapters()
        if (folder / TOKEN_FILE).is_file():
            backbone.load_token(folder)
        if (folder / LORA_FILE).is_file():
            backbone.attach(folder)
        backbone.name = model
    else:
        backbone = _load_pipeline(model, device, dtype)
    if scheduler:
        backbone.set_scheduler(scheduler)
    return backbone


def is_adapter(folder: Path) -> bool:
    """Say whether a folder holds what is put on a base: a LoRA, a learned word, or both."""
    return any((folder / name).is_file() for name in (LORA_FILE, TOKEN_FILE))


def base_of(adapter: Path) -> str:
    """Return the model that a LoRA or a learned word was put on.

    Raises:
        TastemakerError: The folder does not say.
    """
    marker = adapter / MODEL_FILE
    if not marker.is_file():
        raise TastemakerError(
            f"{adapter} is a LoRA without {MODEL_FILE}; write one that names its base:"
            ' {"base": "stable-diffusion-v1-5/stable-diffusion-v1-5"}.'
        )
    return str(read_json(marker)["base"])


def _load_pipeline(model: str, device: str, dtype: str) -> Any:
    from diffusers import DiffusionPipeline

    hide_bars()
    place = resolve(model)
    family = _family(model, place)
    extras = {"safety_checker": None} if family == "StableDiffusionPipeline" else {}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            pipeline = DiffusionPipeline.from_pretrained(place, dtype=torch_dtype(dtype), **extras)
    except (OSError, ValueError, KeyError) as error:
        raise TastemakerError(f"model {model!r} could not be loaded: {error}") from error
    pipeline.to(torch_device(device))
    return _class(family)(model, pipeline)


def backbone_class(model: str) -> Any:
    """Return the class of a model's family.

    Raises:
        TastemakerError: The model is missing, broken, or of an unknown family.
    """
    return _class(_family(model, resolve(model)))


def hide_bars() -> None:
    """Turn off the libraries' bars for every small component: they would bury our own."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()


def _class(family: str) -> Any:
    module, _, name = FAMILIES[family].partition(":")
    return getattr(importlib.import_module(module), name)


def _family(model: str, place: str) -> str:
    from diffusers import DiffusionPipeline

    folder = Path(place)
    known = ", ".join(MODELS.names())
    if folder.is_dir():
        index = folder / "model_index.json"
        if not index.is_file():
            raise TastemakerError(
                f"{model} is no model: it holds neither model_index.json (a pipeline) nor"
                f" {LORA_FILE} (a LoRA)."
            )
        try:
            family = str(json.loads(index.read_text(encoding="utf-8"))["_class_name"])
        except (json.JSONDecodeError, KeyError) as error:
            raise TastemakerError(f"{index} is broken: {error!r}; save the model again.") from None
    elif place.count("/") != 1 or place.startswith((".", "/", "~")):
        raise TastemakerError(
            f"model {model!r} does not exist: no such folder, and no hub id has that form."
            f" Named models: {known}."
        )
    else:
        try:
            family = str(DiffusionPipeline.load_config(place)["_class_name"])
        except (OSError, ValueError) as error:
            raise TastemakerError(
                f"model {model!r} is neither a folder here nor reachable on the hub: {error}"
            ) from error
    if family not in FAMILIES:
        raise TastemakerError(
            f"{model} is a {family}; this version knows {', '.join(sorted(FAMILIES))}."
        )
    return family
