"""Colour drift: the mean hue of an image, and its distance to the base's."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from itertools import zip_longest
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from tastemaker.core.errors import TastemakerError

if TYPE_CHECKING:
    from torch import Tensor

# Below this share of its length the sum of hues is rounding, and points nowhere.
SMALLEST_RESULTANT = 1e-9

MISSING = math.inf
"""Hue of an image that is not there; None is that of an image without one."""


def mean_hue(image: Image.Image) -> float | None:
    """Circular mean of an image's hue, weighted by chroma.

    `arg(sum_p c_p exp(i h_p))`, with the hue `h` and the chroma `c = max(r, g, b) - min(r, g, b)`
    of each pixel, which is its saturation times its value.

    The weight is our reading. Without it every grey pixel would count as red, the hue that
    conversions give to what has none, and a white background would decide.

    Args:
        image: An image of any size and mode, read as RGB.

    Returns:
        Degrees in [0, 360): 0 red, 120 green, 240 blue. None where the mean is undefined: the
        image is grey, or its hues cancel, as those of equal parts of red and cyan do.

    Example:
        >>> half = Image.new("RGB", (2, 1), "red")
        >>> half.putpixel((1, 0), (0, 255, 0))
        >>> round(mean_hue(half), 6)  # halfway from red, 0, to green, 120
        60.0
        >>> mean_hue(Image.new("RGB", (2, 1), "grey")) is None
        True

    References:
        Mardia and Jupp (2000), Directional statistics, section 2.2 (the circular mean).
    """
    r, g, b = np.moveaxis(np.asarray(image.convert("RGB"), dtype=np.float64), -1, 0)
    high = np.maximum(np.maximum(r, g), b)
    chroma = high - np.minimum(np.minimum(r, g), b)
    c = np.where(chroma > 0, chroma, 1)
    sixths = np.select(
        [high == r, high == g], [(g - b) / c, (b - r) / c + 2], default=(r - g) / c + 4
    )
    total = (chroma * np.exp(1j * math.pi / 3 * sixths)).sum()
    if abs(total) <= SMALLEST_RESULTANT * chroma.sum():
        return None
    # Twice: an angle just below 0 becomes 360 at first, by rounding.
    return float(np.angle(total, deg=True)) % 360 % 360


def hue_batches(images: Iterable[Image.Image]) -> Iterator[Tensor]:
    """Yield the mean hue of one image after the other, [1, 1], NaN for one without."""
    import torch

    for image in images:
        hue = mean_hue(image)
        yield torch.tensor([[math.nan if hue is None else hue]], dtype=torch.float64)


def hue_difference(a: float, b: float) -> float:
    """Circular difference of two hues: `|((a - b + 180) mod 360) - 180|`.

    Args:
        a: Degrees.
        b: Degrees.

    Returns:
        Degrees in [0, 180].

    Example:
        >>> hue_difference(350, 10)
        20.0
    """
    return float(abs((a - b + 180) % 360 - 180))


def hue_distance(images: Iterable[Image.Image], base_images: Iterable[Image.Image]) -> float:
    """Mean circular difference between the mean hues of images and of the base's.

    `E |h(x) - h(x_base)|`, over the pairs of one prompt and seed. It shows the colour drift that
    preference optimisation can bring, whose direction may differ from image to image.

    Args:
        images: The policy's images, read once.
        base_images: The base's images of the same prompts and seeds, in the same order.

    Returns:
        Degrees in [0, 180]; 0 for images that are the base's own, about 90 for hues that have
        nothing to do with the base's.

    Raises:
        TastemakerError: The numbers of images differ, or no pair has two hues.

    Example:
        >>> red, blue = (Image.new("RGB", (1, 1), colour) for colour in ("red", "blue"))
        >>> round(hue_distance([red, blue], [red, red]), 6)  # 0 and 120
        60.0

    References:
        Na et al. (HG-DPO), arXiv 2405.20216.
    """
    return mean_hue_difference(map(mean_hue, images), map(mean_hue, base_images))


def mean_hue_difference(hues: Iterable[float | None], base_hues: Iterable[float | None]) -> float:
    """Mean circular difference of hues.

    Pairs in which an image has no mean hue (see `mean_hue`) are left out.

    Args:
        hues: Of the policy's images, degrees.
        base_hues: Of the base's images of the same prompts and seeds, in the same order.

    Returns:
        Degrees in [0, 180].

    Raises:
        TastemakerError: The numbers of images differ, or no pair has two hues.

    Example:
        >>> mean_hue_difference([350.0, None], [10.0, 20.0])
        20.0
    """
    differences: list[float] = []
    pairs = 0
    for hue, base_hue in zip_longest(hues, base_hues, fillvalue=MISSING):
        if MISSING in (hue, base_hue):
            raise TastemakerError(
                "there are more images on one side; give those of the same prompts and seeds."
            )
        pairs += 1
        if hue is not None and base_hue is not None:
            differences.append(hue_difference(hue, base_hue))
    if not differences:
        raise TastemakerError(
            f"none of {pairs} pairs of images has a hue on both sides; give coloured images."
        )
    return math.fsum(differences) / len(differences)
