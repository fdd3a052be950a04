"""Checks of a pipeline's parts by their configuration files, before weights load."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from tastemaker.backbones.family import Family
from tastemaker.backbones.places import INDEX, read_part
from tastemaker.backbones.schedulers import check_scheduler
from tastemaker.core.errors import TastemakerError
from tastemaker.storage.files import read_json

WEIGHTS = re.compile(
    r"(?:diffusion_pytorch_model|pytorch_model|model)"
    r"(?:\.(?P<variant>\w+?))?(?:-\d+-of-\d+)?\.(?:safetensors|bin)"
)
"""Files of weights: whole or a shard, plain or of a variant such as fp16."""

STUDENTS = re.compile(r"turbo|lightning|lcm|hyper|schnell|dmd", re.IGNORECASE)
"""In the names of models that were distilled to a few steps."""


def check_parts(model: str, place: str, index: Mapping[str, Any], family: type[Family]) -> None:
    """Refuse a pipeline with a part that is not understood.

    Args:
        model: For messages.
        place: Pipeline folder or hub id.
        index: Its model_index.json.
        family: The family of its class.

    Raises:
        TastemakerError: A part is missing, of another class, or has an option that would train or
            draw wrongly.
    """
    configs: dict[str, dict[str, Any]] = {}
    for part, known in family.classes.items():
        kind = _class_of(model, index, part)
        if kind is None and part in family.optional:
            continue
        if kind != known:
            found = "missing" if kind is None else f"of class {kind}"
            raise TastemakerError(
                f"{model}: its {part} is {found}; that of a {index['_class_name']} is read as"
                f" {known} alone. Take a model that has it so."
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
    _check_autoencoder(model, configs["vae"], family.vae_options)
    family.check_options(model, configs)
    kind = _class_of(model, index, "scheduler")
    if kind is None:
        raise TastemakerError(f"{model}: its scheduler is missing; save the model again.")
    schedule = read_part(place, "scheduler/scheduler_config.json")
    check_scheduler(model, kind, schedule, family.samplers)


def _class_of(model: str, index: Mapping[str, Any], part: str) -> str | None:
    """Class of a part; None where the pipeline has none."""
    entry = index.get(part) or [None, None]
    if not isinstance(entry, list) or len(entry) != 2:
        raise TastemakerError(f"{model}: {INDEX} is broken at {part!r}; save the model again.")
    return None if entry[1] is None else str(entry[1])


def _check_autoencoder(model: str, config: Mapping[str, Any], needed: Sequence[str]) -> None:
    """Refuse a VAE without usable numbers for the units of its latents."""
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


def student(
    names: Iterable[str],
    index: Mapping[str, Any],
    config: Mapping[str, Any],
    family: type[Family],
) -> str | None:
    """Return the sign by which a model is known to be distilled to a few steps.

    Args:
        names: Of the pipeline and of the LoRAs on it: hub ids or folders.
        index: The pipeline's model_index.json.
        config: The denoiser's config.json.
        family: The family of the pipeline's class.

    Returns:
        The sign; None where there is none.
    """
    scheduler = str((index.get("scheduler") or ["", ""])[1])
    sign = family.distilled(config)
    if sign or scheduler in ("LCMScheduler", "TCDScheduler"):
        return sign or scheduler
    given = (*names, *(str(each.get("_name_or_path", "")) for each in (index, config)))
    found = (STUDENTS.search(Path(name).name) for name in given)
    return next((match.group() for match in found if match), None)


def variant_of(folder: Path, family: type[Family]) -> str | None:
    """Find the variant of a pipeline folder's weights.

    Args:
        folder: The pipeline's.
        family: The family of its class.

    Returns:
        A variant such as "fp16" where a part has no plain weights; None where all have.

    Raises:
        TastemakerError: A part has no weights, a shard is missing, or parts need two variants.
    """
    found: set[str] = set()
    for part in family.classes:
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
