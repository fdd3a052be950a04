"""Load a backbone by name, hub id or folder; its `model_index.json` names the family."""

from __future__ import annotations

import importlib
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from tastemaker.backbones.lora.diffusers_file import LORA_FILE, MODEL_FILE, base_of
from tastemaker.backbones.lora.layers import read_layers, summed
from tastemaker.backbones.lora.weights import attach_lora, fuse_layers
from tastemaker.backbones.parts import INDEX, check_parts, read_part, variant_of
from tastemaker.backbones.schedulers import set_scheduler
from tastemaker.backbones.textual_inversion import TOKEN_FILE, load_token
from tastemaker.core.errors import TastemakerError
from tastemaker.core.hardware import check_dtype, torch_device, torch_dtype
from tastemaker.core.registry import MODELS

if TYPE_CHECKING:
    from tastemaker.backbones.base import Backbone

FAMILIES = {
    "StableDiffusionPipeline": "tastemaker.backbones.unet:UNetBackbone",
    "StableDiffusionXLPipeline": "tastemaker.backbones.sdxl:SDXLBackbone",
    "StableDiffusion3Pipeline": "tastemaker.backbones.flow:SD3Backbone",
    "FluxPipeline": "tastemaker.backbones.flux:FluxBackbone",
}

SINGLE_FILES = (".safetensors", ".ckpt", ".pt", ".pth", ".bin", ".gguf")


def resolve(model: str) -> str:
    """Turn a registered model name into its folder; leave hub ids and folders as they are."""
    return str(MODELS.entry(model)()) if model in MODELS else model


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
    folders, base = adapter_chain(model)
    backbone: Backbone = _load_pipeline(base, device, dtype)
    loras = [folder for folder in folders if (folder / LORA_FILE).is_file()]
    top = loras.pop() if loras and loras[-1] == folders[-1] and not fused else None
    # Added up before they are rounded to the weights' precision.
    fuse_layers(backbone, summed(read_layers(folder / LORA_FILE) for folder in loras))
    for folder in folders:
        if (folder / TOKEN_FILE).is_file():
            load_token(backbone, folder)
    if top is not None:
        attach_lora(backbone, top)
    backbone.name = model
    if scheduler:
        set_scheduler(backbone, scheduler)
    return backbone


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


def _load_pipeline(model: str, device: str, dtype: str) -> Any:
    from diffusers import DiffusionPipeline

    hide_bars()
    place = resolve(model)
    kind = backbone_class(model)
    target = torch_device(device)
    check_dtype(target, dtype)
    options: dict[str, Any] = {"dtype": torch_dtype(dtype), **left_out(place)}
    if Path(place).is_dir():
        options["variant"] = variant_of(Path(place), kind)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            pipeline = DiffusionPipeline.from_pretrained(place, **options)
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # whatever the libraries stumble over in files of others
        raise unreadable(model, error) from error
    pipeline.to(target)
    return kind(model, pipeline)


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
    place = resolve(model)
    _check_place(model, place)
    index = read_part(place, INDEX)
    family = index.get("_class_name")
    if family not in FAMILIES:
        raise TastemakerError(
            f"{model} is a {family}; this version knows {', '.join(sorted(FAMILIES))}."
        )
    kind = _class_of(family)
    check_parts(model, place, index, kind)
    return kind


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
