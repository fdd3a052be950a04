"""Checks of a pipeline's parts by their configuration files, before weights load."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from tastemaker.backbones.schedulers import DIFFUSION, FLOW, check_scheduler
from tastemaker.core.errors import TastemakerError
from tastemaker.core.hub import hub_file
from tastemaker.storage.files import read_json

INDEX = "model_index.json"

CLIP, PROJECTED = "CLIPTextModel", "CLIPTextModelWithProjection"

PARTS: dict[str, dict[str, str]] = {
    "StableDiffusionPipeline": {
        "unet": "UNet2DConditionModel",
        "vae": "AutoencoderKL",
        "text_encoder": CLIP,
    },
    "StableDiffusionXLPipeline": {
        "unet": "UNet2DConditionModel",
        "vae": "AutoencoderKL",
        "text_encoder": CLIP,
        "text_encoder_2": PROJECTED,
    },
    "StableDiffusion3Pipeline": {
        "transformer": "SD3Transformer2DModel",
        "vae": "AutoencoderKL",
        "text_encoder": PROJECTED,
        "text_encoder_2": PROJECTED,
        "text_encoder_3": "T5EncoderModel",
    },
    "FluxPipeline": {
        "transformer": "FluxTransformer2DModel",
        "vae": "AutoencoderKL",
        "text_encoder": CLIP,
        "text_encoder_2": "T5EncoderModel",
    },
}
"""Class of each part by pipeline."""

OPTIONAL = ("text_encoder_3",)
"""Parts that a pipeline can sample without."""

WEIGHTS = re.compile(
    r"(?:diffusion_pytorch_model|pytorch_model|model)"
    r"(?:\.(?P<variant>\w+?))?(?:-\d+-of-\d+)?\.(?:safetensors|bin)"
)
"""Files of weights: whole or a shard, plain or of a variant such as fp16."""

STUDENTS = re.compile(r"turbo|lightning|lcm|hyper|schnell|dmd", re.IGNORECASE)
"""In the names of models that were distilled to a few steps."""


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


def check_parts(model: str, place: str, index: Mapping[str, Any]) -> None:
    """Refuse a pipeline with a part that is not understood.

    Args:
        model: For messages.
        place: Pipeline folder or hub id.
        index: Its model_index.json, of a known pipeline.

    Raises:
        TastemakerError: A part is missing, of another class, or has an option that would train or
            draw wrongly.
    """
    family = str(index["_class_name"])
    configs: dict[str, dict[str, Any]] = {}
    for part, known in PARTS[family].items():
        kind = _class_of(model, index, part)
        if kind is None and part in OPTIONAL:
            continue
        if kind != known:
            found = "missing" if kind is None else f"of class {kind}"
            raise TastemakerError(
                f"{model}: its {part} is {found}; that of a {family} is read as {known} alone."
                " Take a model that has it so."
            )
        configs[part] = read_part(place, f"{part}/config.json")
        if configs[part].get("quantization_config"):
            raise TastemakerError(
                f"{model}: its {part} is quantised, which is not supported; take the model with"
                " weights in fp16, bf16 or fp32."
            )
    for part in index:
        if part.startswith("tokenizer") and _class_of(model, index, part):
            read_part(place, f"{part}/tokenizer_config.json")
    _check_autoencoder(model, family, configs["vae"])
    if "unet" in configs:
        _check_unet(model, family, configs)
    else:
        _check_transformer(model, family, configs)
    kind = _class_of(model, index, "scheduler")
    if kind is None:
        raise TastemakerError(f"{model}: its scheduler is missing; save the model again.")
    schedule = read_part(place, "scheduler/scheduler_config.json")
    check_scheduler(model, kind, schedule, DIFFUSION if "unet" in configs else FLOW)


def _class_of(model: str, index: Mapping[str, Any], part: str) -> str | None:
    """Class of a part; None where the pipeline has none."""
    entry = index.get(part) or [None, None]
    if not isinstance(entry, list) or len(entry) != 2:
        raise TastemakerError(f"{model}: {INDEX} is broken at {part!r}; save the model again.")
    return None if entry[1] is None else str(entry[1])


def _check_autoencoder(model: str, family: str, config: Mapping[str, Any]) -> None:
    """Latents are `(z - shift) * scale`: files say both numbers, but for SD 1.x's first ones."""
    needed = {
        "StableDiffusionPipeline": (),
        "StableDiffusionXLPipeline": ("scaling_factor",),
    }.get(family, ("scaling_factor", "shift_factor"))
    for name in ("scaling_factor", "shift_factor"):
        value = config.get(name)
        if value is None and name not in needed:
            continue
        number = value if isinstance(value, (int, float)) else math.nan
        if not math.isfinite(number) or (name == "scaling_factor" and number <= 0):
            raise TastemakerError(
                f"{model}: {name} in vae/config.json is {value!r}; without that number its latents"
                " have no scale. Write the one that the model was published with."
            )


@cache
def latent_units(place: str) -> tuple[Any, ...]:
    """Return the units of a VAE's latents: channels, scale and shift.

    Args:
        place: Pipeline folder or hub id.

    Raises:
        TastemakerError: It cannot be read.
    """
    config = read_part(place, "vae/config.json")
    usual = {"latent_channels": 4, "scaling_factor": 0.18215}
    names = ("latent_channels", "scaling_factor", "shift_factor", "latents_mean", "latents_std")
    return tuple(str(config.get(name, usual.get(name))) for name in names)


def _check_unet(model: str, family: str, configs: Mapping[str, Mapping[str, Any]]) -> None:
    config = configs["unet"]
    latents = configs["vae"].get("latent_channels", 4)
    takes = config.get("in_channels", 4)
    if takes != latents or config.get("out_channels", 4) != latents:
        what = {2 * latents: "an instruct-pix2pix", 2 * latents + 1: "an inpainting"}.get(takes)
        raise TastemakerError(
            f"{model}: its U-Net takes {takes} channels and gives {config.get('out_channels', 4)},"
            f" its VAE makes {latents}: {what or 'no text-to-image'} model. Take the text-to-image"
            " model that it was made from."
        )
    if config.get("time_cond_proj_dim") is not None:
        raise TastemakerError(
            f"{model}: its U-Net takes guidance as input (time_cond_proj_dim): a consistency model"
            " distilled to a few steps, which preference training on noisy latents would break."
            " Take the model that it was distilled from."
        )
    sizes = "text_time" if family == "StableDiffusionXLPipeline" else None
    for option, known in {
        "addition_embed_type": sizes,
        "class_embed_type": None,
        "num_class_embeds": None,
        "encoder_hid_dim_type": None,
    }.items():
        if config.get(option) != known:
            raise TastemakerError(
                f"{model}: its U-Net has {option}={config.get(option)!r}; a {family} is read with"
                f" {known!r} alone. Take a text-to-image model of that family."
            )
    if sizes:
        _check_sizes(model, config, configs["text_encoder_2"])


def _check_sizes(model: str, unet: Mapping[str, Any], encoder: Mapping[str, Any]) -> None:
    """Refuse a refiner: its U-Net takes five numbers beside the pooled text, SDXL's six."""
    width = unet.get("projection_class_embeddings_input_dim") or 0
    each = unet.get("addition_time_embed_dim") or 0
    numbers = (width - encoder.get("projection_dim", 512)) / max(each, 1)
    if numbers != 6:
        raise TastemakerError(
            f"{model}: its U-Net takes {numbers:g} numbers beside the prompt, an SDXL base model"
            " six (sizes and crop): it may be a refiner. Take the base model."
        )


def _check_transformer(model: str, family: str, configs: Mapping[str, Mapping[str, Any]]) -> None:
    flux = family == "FluxPipeline"
    config = configs["transformer"]
    latents = configs["vae"].get("latent_channels", 4) * (4 if flux else 1)
    takes = config.get("in_channels", 64 if flux else 16)
    gives = config.get("out_channels") or takes
    if takes != latents or gives != latents:
        raise TastemakerError(
            f"{model}: its transformer takes {takes} channels and gives {gives}, where its VAE's"
            f" latents are {latents}: a model of another task (fill, control) or with another VAE."
            " Take the text-to-image model that it was made from."
        )
    if flux and config.get("patch_size", 1) != 1:
        raise TastemakerError(
            f"{model}: its transformer has patch_size={config['patch_size']}, FLUX.1's is 1; take a"
            " FLUX.1 model."
        )


def student(model: str, place: str, index: Mapping[str, Any]) -> str | None:
    """Return the sign by which a model is known to be distilled to a few steps.

    Args:
        model: Its name in the configuration.
        place: Pipeline folder or hub id.
        index: Its model_index.json.

    Returns:
        The sign; None where there is none.
    """
    names = [model, str(index.get("_name_or_path", ""))]
    for part in ("unet", "transformer"):
        if index.get(part):
            config = read_part(place, f"{part}/config.json")
            names.append(str(config.get("_name_or_path", "")))
            if index["_class_name"] == "FluxPipeline" and not config.get("guidance_embeds"):
                return "guidance_embeds=false"
    scheduler = str((index.get("scheduler") or ["", ""])[1])
    if scheduler in ("LCMScheduler", "TCDScheduler"):
        return scheduler
    found = (STUDENTS.search(Path(name).name) for name in names)
    return next((match.group() for match in found if match), None)


def variant_of(folder: Path, family: str) -> str | None:
    """Find the variant of a pipeline folder's weights.

    Args:
        folder: The pipeline's.
        family: Its class.

    Returns:
        A variant such as "fp16" where a part has no plain weights; None where all have.

    Raises:
        TastemakerError: A part has no weights, a shard is missing, or parts need two variants.
    """
    found: set[str] = set()
    for part in PARTS[family]:
        place = folder / part
        if not place.is_dir():
            continue
        files = {entry.name: WEIGHTS.fullmatch(entry.name) for entry in place.iterdir()}
        variants = {match["variant"] for match in files.values() if match}
        if not variants:
            raise TastemakerError(
                f"{place} has no weights (*.safetensors or *.bin); download the model again."
            )
        if None not in variants:
            found.add(min(variants))
        _check_shards(place)
    if len(found) > 1:
        raise TastemakerError(
            f"{folder} has weights of the variants {', '.join(sorted(found))} in different parts;"
            " save the model in one."
        )
    return next(iter(found), None)


def _check_shards(folder: Path) -> None:
    for index in folder.glob("*.index*.json"):
        content = read_json(index)
        names = content.get("weight_map", {}) if isinstance(content, dict) else {}
        missing = sorted({str(name) for name in names.values() if not (folder / name).is_file()})
        if missing:
            raise TastemakerError(
                f"{folder} is not whole: {index.name} names {missing[0]}, which is missing;"
                " download the model again."
            )
