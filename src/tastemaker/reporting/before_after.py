"""One picture of a run: the base's images above the policy's, for a README or a model card."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

from PIL import Image, ImageDraw

from tastemaker.reporting.images import Thumbnail
from tastemaker.reporting.samples import Strip

CELL, GAP, LABEL = 128, 4, 22


def before_after(strips: Sequence[Strip]) -> Image.Image | None:
    """Arrange the strips' images side by side, one row per model, the base's first.

    Args:
        strips: Return value of `samples.strips`.

    Returns:
        The picture, or None where a strip lacks an image.
    """
    if not strips or any(drawn.image is None for strip in strips for drawn in strip.drawn):
        return None
    models = [drawn.model for drawn in strips[0].drawn]
    width = GAP + (CELL + GAP) * len(strips)
    sheet = Image.new("RGB", (width, (LABEL + CELL + GAP) * len(models)), "white")
    pen = ImageDraw.Draw(sheet)
    for row, model in enumerate(models):
        top = row * (LABEL + CELL + GAP)
        pen.text((GAP, top + 2), model, fill="black", font_size=14)
        for column, strip in enumerate(strips):
            image = strip.drawn[row].image
            if image is not None:
                sheet.paste(_cell(image), (GAP + (CELL + GAP) * column, top + LABEL))
    return sheet


def _cell(thumbnail: Thumbnail) -> Image.Image:
    encoded = base64.b64decode(thumbnail.uri.partition(",")[2])
    with Image.open(io.BytesIO(encoded)) as opened:
        image = opened.convert("RGB")
    # Pixels of small images are shown as they are; large images are smoothed.
    small = thumbnail.is_small
    image.thumbnail((CELL, CELL))
    return image.resize(
        (CELL, CELL), Image.Resampling.NEAREST if small else Image.Resampling.LANCZOS
    )
