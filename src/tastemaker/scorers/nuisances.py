"""Nuisances: changes of a picture that make it no better, which no scorer should reward."""

from __future__ import annotations

import io
from collections.abc import Callable

from PIL import Image, ImageEnhance, ImageFilter, ImageOps

Nuisance = Callable[[Image.Image], Image.Image]


def contrast(image: Image.Image) -> Image.Image:
    """Return the picture with every value 1.1 times as far from mid-grey, clipped."""
    return image.point(lambda value: round(1.1 * (value - 127.5) + 127.5))


def jpeg(image: Image.Image) -> Image.Image:
    """Return the picture after JPEG of quality 50."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=50)
    return Image.open(file).convert("RGB")


def shifted(image: Image.Image) -> Image.Image:
    """Return the picture one pixel further right, its first column twice."""
    moved = image.copy()
    moved.paste(image, (1, 0))
    return moved


NUISANCES: dict[str, Nuisance] = {
    "one grey level more": lambda image: image.point(lambda value: min(value + 1, 255)),
    "brightness x 1.1": lambda image: ImageEnhance.Brightness(image).enhance(1.1),
    "contrast x 1.1": contrast,
    "saturation x 1.2": lambda image: ImageEnhance.Color(image).enhance(1.2),
    "blur, radius 0.7": lambda image: image.filter(ImageFilter.GaussianBlur(0.7)),
    "sharpness x 1.5": lambda image: ImageEnhance.Sharpness(image).enhance(1.5),
    "JPEG, quality 50": jpeg,
    "mirrored": ImageOps.mirror,
    "shifted by one pixel": shifted,
}
"""Name to function, from an RGB picture to one of its size; the order of every table."""
