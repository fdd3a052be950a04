"""The overview of a pool or of pairs as lines of a terminal."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image

from tastemaker.core.batching import batched
from tastemaker.reporting.images import Thumbnail
from tastemaker.reporting.pool.overview import Array, Overview

WIDTH, CELLS = 18, 4
"""Characters of an image in the terminal, and images in a row."""


def lines(overview: Overview) -> str:
    """Format facts, and mean, deviation and range of the scores.

    Args:
        overview: Overview of a folder.

    Returns:
        Lines of text.
    """
    facts = overview.facts | {
        name if side == "all" else f"{name}, {side}": _spread(values)
        for name, sides in overview.scores.items()
        for side, values in sides.items()
        if len(values)
    }
    widest = max(map(len, facts))
    return "\n".join(
        [overview.name, *(f"{label:>{widest}}  {value}" for label, value in facts.items())]
    )


def _spread(values: Array) -> str:
    return (
        f"mean {values.mean():.3g}, standard deviation {values.std():.3g},"
        f" from {values.min():.4g} to {values.max():.4g}"
    )


def blocks(overview: Overview) -> str:
    """Draw the contact sheet in half blocks of a terminal that shows 24-bit colours.

    Args:
        overview: Overview of a folder.

    Returns:
        Lines of text, each two rows of pixels high.
    """
    images = [image for card in overview.cards for image in card.images.values() if image]
    rows = ["", ""]
    for part in batched(images, CELLS):
        cells = [_pixels(image) for image in part]
        for top in range(0, WIDTH, 2):
            rows.append("  ".join(_line(cell[top], cell[top + 1]) for cell in cells))
        rows.append("")
    return "\n".join(rows)


def _pixels(thumbnail: Thumbnail) -> Array:
    encoded = base64.b64decode(thumbnail.uri.partition(",")[2])
    with Image.open(io.BytesIO(encoded)) as opened:
        image = opened.convert("RGB").resize((WIDTH, WIDTH), Image.Resampling.BOX)
    return np.asarray(image, dtype=np.float64)


def _line(upper: Array, lower: Array) -> str:
    marks = [
        "\x1b[38;2;{};{};{};48;2;{};{};{}m▀".format(*map(int, (*above, *below)))
        for above, below in zip(upper, lower, strict=True)
    ]
    return "".join(marks) + "\x1b[0m"
