"""The contents of a pool or of pairs as lines of a terminal."""

from __future__ import annotations

import base64
import io
import itertools
import math

import numpy as np
from PIL import Image

from tastemaker.core.batching import batched
from tastemaker.reporting.images import Thumbnail
from tastemaker.reporting.pool.contents import Array, Contents

BAR = 40
WIDTH, CELLS = 18, 4
"""Characters of an image in the terminal, and images in a row."""


def lines(contents: Contents, bins: int) -> str:
    """Write facts and histograms.

    Args:
        contents: Of a folder.
        bins: Bars of a histogram.

    Returns:
        Lines of text.
    """
    widest = max(map(len, contents.facts))
    facts = [f"{label:>{widest}}  {value}" for label, value in contents.facts.items()]
    charts = [
        histogram(f"{name}, {side}" if side != "all" else name, values, bins)
        for name, sides in contents.scores.items()
        for side, values in sides.items()
        if len(values)
    ]
    return "\n".join([contents.name, *facts, *(f"\n{chart}" for chart in charts)])


def histogram(name: str, values: Array, bins: int) -> str:
    """Write a histogram as lines of text.

    Args:
        name: Its heading.
        values: One or more.
        bins: Bars; less where all values are one.

    Returns:
        A line with mean, deviation and range, and a line a bar.

    Example:
        >>> print(histogram("score", np.array([0.0, 1.0, 1.0]), 2))
        score: mean 0.667, standard deviation 0.471, from 0 to 1
                 0 to        0.5  ####################                     1
               0.5 to          1  ######################################## 2
    """
    spread = f"standard deviation {values.std():.3g}, from {values.min():.4g} to {values.max():.4g}"
    counts, edges = np.histogram(values, bins if values.min() < values.max() else 1)
    most = counts.max()
    bars = [
        f"{low:10.4g} to {high:10.4g}  {'#' * math.ceil(BAR * count / most):{BAR}} {count}"
        for count, (low, high) in zip(counts, itertools.pairwise(edges), strict=True)
    ]
    return "\n".join([f"{name}: mean {values.mean():.3g}, {spread}", *bars])


def blocks(contents: Contents) -> str:
    """Draw the contact sheet in half blocks of a terminal that shows 24-bit colours.

    Args:
        contents: Of a folder.

    Returns:
        Lines of text, each two rows of pixels high.
    """
    images = [image for card in contents.cards for image in card.images.values() if image]
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
