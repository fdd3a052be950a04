"""Conversion of compared and captioned images to candidates: cropped, scaled, with verdicts."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

from PIL import Image, ImageOps

from tastemaker.config.datasets import (
    HUMAN,
    TIE,
    Bucket,
    ImagesConfig,
    ImportConfig,
    SourceConfig,
)
from tastemaker.core.errors import TastemakerError
from tastemaker.core.reading import require_unicode
from tastemaker.core.seeding import keyed_seed
from tastemaker.datasets.captioned import Captioned
from tastemaker.datasets.comparisons import Comparison
from tastemaker.datasets.filters import Reasons, prompt_reasons, size_reason
from tastemaker.datasets.items import Convert, Filtered, Usable
from tastemaker.storage.candidates import REAL
from tastemaker.storage.files import config_key
from tastemaker.storage.images import crop_box, encode_png, fit, pixel_hash, size_conditioning
from tastemaker.storage.photographs import Decoded, read_photograph


def converter(config: SourceConfig) -> Convert[Any]:
    """Return the conversion of items to candidates that an import's options ask for."""
    reasons = prompt_reasons(config.filters, config.split)
    if isinstance(config, ImportConfig):
        return functools.partial(_compared, config, reasons)
    assert isinstance(config, ImagesConfig)
    return functools.partial(_photograph, config, reasons)


def _compared(
    config: ImportConfig, reasons: Reasons, comparison: Comparison, number: int
) -> Usable:
    """Convert a comparison: all its images are cropped to one shape, and mirrored alike or not.

    Raises:
        Filtered: An option keeps it out.
        TastemakerError: It cannot be used.
    """
    prompt = _prompt(comparison.prompt, "prompt", reasons)
    for name in comparison.models:
        require_unicode(name, "the name of a model")
    scores = _verdicts(config, comparison)
    decoded = [_decoded(data, i, config.max_pixels) for i, data in enumerate(comparison.images)]
    images = [each.image for each in decoded]
    sizes = [image.size for image in images]
    _drop(size_reason(config.filters, sizes))
    pictures = tuple(pixel_hash(image) for image in images)
    for place, picture in enumerate(pictures):
        first = pictures.index(picture)
        if first < place:
            raise TastemakerError(f"images {first} and {place} are the same picture")
    group = config_key(comparison.where)
    shape = _shape(config, sizes)
    mirrored = config.random_flip and bool(keyed_seed(0, "flip", comparison.where) & 1)
    as_is = shape is None and not mirrored
    encoded = [
        data if as_is and each.as_stored else _encoded(each.image, shape, mirrored)
        for data, each in zip(comparison.images, decoded, strict=True)
    ]
    rows = tuple(
        {
            "candidate_id": f"{group}-{place}",
            "prompt_id": group,
            "prompt": prompt,
            "seed": place,
            "source": "imported",
            "source_id": comparison.where,
            "timestep": None,
            "model": model,
            "image": {"bytes": data, "path": None},
            **{scorer: values[place] for scorer, values in scores.items()},
        }
        for place, (data, model) in enumerate(zip(encoded, comparison.models, strict=True))
    )
    notes = tuple(note for each in decoded for note in each.notes)
    return Usable(rows, pictures, notes=notes)


def _verdicts(config: ImportConfig, comparison: Comparison) -> dict[str, tuple[float, ...]]:
    """Return the columns of the verdicts; raise `Filtered` for ties of a kind that is dropped."""
    if comparison.bad and config.both_bad == "dropped":
        raise Filtered("comparisons with both images bad (both_bad=dropped)")
    if comparison.tied and config.ties == "dropped":
        what = "ties" if comparison.judged else "comparisons without a verdict"
        raise Filtered(f"{what} (ties=dropped)")
    turned = config.reversed_labels
    human = tuple(1.0 - each if turned else each for each in comparison.verdicts)
    tie = float(comparison.tied and comparison.judged)
    return {HUMAN: human, TIE: (tie,) * len(human)}


def _decoded(data: bytes, place: int, max_pixels: int) -> Decoded:
    if not data:
        raise TastemakerError(f"image {place}: it is empty")
    try:
        return read_photograph(data, max_pixels)
    except TastemakerError as error:
        raise TastemakerError(f"image {place}: {error}") from None


def _photograph(
    config: ImagesConfig, reasons: Reasons, captioned: Captioned, number: int
) -> Usable:
    """Convert a photograph: cropped and scaled.

    Raises:
        Filtered: An option keeps it out.
        TastemakerError: It cannot be used.
    """
    prompt = _prompt(captioned.caption, "caption", reasons)
    whole, _, notes = read_photograph(captioned.encoded(), config.max_pixels)
    image = whole if captioned.box is None else crop_box(whole, captioned.box)
    _drop(size_reason(config.filters, [image.size]))
    shape = _shape(config, [image.size])
    assert shape is not None  # the section asks for one
    width, height = shape
    _refuse_small(image, width, height, config.min_crop_side)
    prompt_id = config_key(prompt)
    row = {
        "candidate_id": f"{prompt_id}-{config_key(REAL, captioned.where)}",
        "prompt_id": prompt_id,
        "prompt": prompt,
        "seed": number,
        "source": REAL,
        "source_id": captioned.where,
        "timestep": None,
        "model": "",
        "image": {"bytes": encode_png(fit(image, width, height)), "path": None},
        **size_conditioning(whole, captioned.box, width, height),
    }
    return Usable((row,), (pixel_hash(image),), once=True, notes=notes)


def _prompt(text: str, what: str, reasons: Reasons) -> str:
    """Strip a text, and refuse it where it is empty, not valid Unicode, or filtered out."""
    prompt = text.strip()
    if not prompt:
        raise TastemakerError(f"the {what} is empty")
    require_unicode(prompt, f"the {what}")
    _drop(reasons(prompt))
    return prompt


def _drop(reason: str | None) -> None:
    if reason is not None:
        raise Filtered(reason)


def _encoded(image: Image.Image, shape: Bucket | None, mirrored: bool) -> bytes:
    kept = image if shape is None else fit(image, *shape)
    return encode_png(ImageOps.mirror(kept) if mirrored else kept)


def _shape(config: SourceConfig, sizes: Sequence[tuple[int, int]]) -> Bucket | None:
    """Return width and height in the pool: the square, or the bucket of the nearest mean aspect."""
    if config.resolution is not None:
        return config.resolution, config.resolution
    if not config.buckets:
        return None
    ratio = sum(math.log(width / height) for width, height in sizes) / len(sizes)
    return min(config.buckets, key=lambda bucket: abs(ratio - math.log(bucket[0] / bucket[1])))


def _refuse_small(image: Image.Image, width: int, height: int, minimum: int | None) -> None:
    """Refuse a picture whose crop to `width` x `height` has too few pixels on its shorter side."""
    least = min(width, height) if minimum is None else minimum
    # The crop's shorter side is min(W / width, H / height) * min(width, height).
    if min(image.width * height, image.height * width) < least * max(width, height):
        raise TastemakerError(
            f"{image.width} x {image.height} pixels are too few for {width} x {height}"
            f" (minimum {least}); lower resolution, or set min_crop_side to allow enlarging"
        )
