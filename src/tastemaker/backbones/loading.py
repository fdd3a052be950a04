"""Load a backbone by name, hub id or folder; its `model_index.json` names the family."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from tastemaker.backbones.lora.layers import read_layers, summed
from tastemaker.backbones.lora.weights import Replaced, attach_lora, fuse_layers
from tastemaker.backbones.parts import check_parts, variant_of
from tastemaker.backbones.places import (
    FAMILIES,
    INDEX,
    LORA_FILE,
    TOKEN_FILE,
    adapter_chain,
    index_of,
    read_part,
    resolve,
    root_of,
)
from tastemaker.backbones.schedulers import set_scheduler
from tastemaker.backbones.textual_inversion import load_token
from tastemaker.core.errors import TastemakerError
from tastemaker.core.hardware import check_dtype, torch_device, torch_dtype

if TYPE_CHECKING:
    from tastemaker.backbones.base import Backbone


def load_backbone(
    model: str,
    *,
    device: str = "auto",
    dtype: str = "fp32",
    scheduler: str | None = None,
    fused: bool = False,
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
        fused: Add the newest LoRA to the weights too, as what another is trained on.

    Returns:
        The backbone, in evaluation mode.

    Raises:
        TastemakerError: The model is missing, broken, or of an unknown family.
    """
    backbone: Backbone = _load_base(root_of(model), device, dtype)
    add_adapters(backbone, model, fused=fused)
    if scheduler:
        set_scheduler(backbone, scheduler)
    return backbone


def add_adapters(
    backbone: Backbone,
    model: str,
    *,
    fused: bool = False,
    replaced: Replaced | None = None,
    parts: Collection[str] = (),
) -> None:
    """Put the LoRAs and learned words of a model on its loaded base.

    Args:
        backbone: The base; gets the model's name.
        model: As of `load_backbone`.
        fused: Add the newest LoRA to the weights too.
        replaced: Gets the values of weights before LoRAs were added to them.
        parts: Of the pipeline, to which adapters that are fused are restricted; none for all.

    Raises:
        TastemakerError: An adapter does not fit.
    """
    folders, _ = adapter_chain(model)
    loras = [folder for folder in folders if (folder / LORA_FILE).is_file()]
    top = loras.pop() if loras and loras[-1] == folders[-1] and not fused else None
    # Added up before they are rounded to the weights' precision.
    layers = summed(read_layers(folder / LORA_FILE) for folder in loras)
    others = {*backbone.adaptable_parts} - {*parts} if parts else ()
    own = {path: each for path, each in layers.items() if path.partition(".")[0] not in others}
    fuse_layers(backbone, own, replaced)
    for folder in folders:
        if (folder / TOKEN_FILE).is_file() and backbone.text_parts[0] not in others:
            load_token(backbone, folder)
    if top is not None:
        attach_lora(backbone, top)
    backbone.name = model


def wrap_pipeline(pipeline: Any) -> Backbone:
    """Make a backbone of a loaded diffusers pipeline, which it uses in place.

    Args:
        pipeline: Of one of `FAMILIES`, on its device.

    Raises:
        TastemakerError: It is something else.
    """
    family = type(pipeline).__name__
    if family not in FAMILIES:
        raise TastemakerError(
            f"model is a {family}; give a name, a folder, or a loaded pipeline of"
            f" {', '.join(sorted(FAMILIES))}."
        )
    name = getattr(pipeline.config, "_name_or_path", None) or family
    backbone: Backbone = _class_of(family)(str(name), pipeline)
    return backbone


def _load_base(model: str, device: str, dtype: str) -> Any:
    hide_bars()
    kind = backbone_class(model)
    target = torch_device(device)
    check_dtype(target, dtype)
    pipeline = read_pipeline(model, kind, torch_dtype(dtype)).to(target)
    if kind.part == "unet":
        lay_out(pipeline.unet, target.type)
    return kind(model, pipeline)


def read_pipeline(model: str, family: Any, dtype: torch.dtype, **given: Any) -> Any:
    """Read a pipeline on the CPU.

    Args:
        model: A registered name, a hub id or a pipeline folder.
        family: Its class of backbone.
        dtype: Precision of the weights.
        **given: Parts that are not read, by name; None leaves one out.

    Raises:
        TastemakerError: The libraries cannot read it.
    """
    from diffusers import DiffusionPipeline

    place = resolve(model)
    options = {"dtype": dtype, **dict.fromkeys(family.left_out), **given}
    if Path(place).is_dir():
        options["variant"] = variant_of(Path(place), family)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            return DiffusionPipeline.from_pretrained(place, **options)
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # whatever the libraries stumble over in files of others
        raise unreadable(model, error) from error


def lay_out(unet: Any, device: str) -> None:
    """Lay the weights of a U-Net out channels last, where its convolutions are faster so.

    Those are CUDA's in half precision, whose tensor cores read channels last. A CPU gains little,
    and would draw other last digits.

    Args:
        unet: A U-Net of diffusers.
        device: Type of its device.
    """
    if device == "cuda" and unet.dtype != torch.float32:
        unet.to(memory_format=torch.channels_last)


def left_out(place: str) -> dict[str, None]:
    """Return the parts of a pipeline that are not loaded, as `from_pretrained` takes them."""
    return dict.fromkeys(_class_of(read_part(place, INDEX)["_class_name"]).left_out)


def unreadable(model: str, error: Exception) -> TastemakerError:
    """Build the one-line error for a model whose files the libraries cannot read."""
    said = " ".join(str(error).split())[:300]
    return TastemakerError(
        f"model {model!r} could not be loaded: {type(error).__name__}: {said}. If its files are"
        " damaged, download or save it again."
    )


def _class_of(family: str) -> Any:
    module, _, name = FAMILIES[family].partition(":")
    return getattr(importlib.import_module(module), name)


def hide_bars() -> None:
    """Turn off the libraries' progress bars, which would bury our own."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()


def backbone_class(model: str) -> Any:
    """Return the class of a model's family, once its parts are known to be understood.

    Args:
        model: A registered name, a hub id or a pipeline folder.

    Raises:
        TastemakerError: The model is missing, broken, or not understood; the message says why.
    """
    index = index_of(model)
    kind = _class_of(index["_class_name"])
    check_parts(model, resolve(model), index, kind)
    return kind
