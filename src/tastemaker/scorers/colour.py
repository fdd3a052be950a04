"""Scores of a picture's colours."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated

from PIL import Image
from pydantic import Field

from tastemaker.core.lazy_torch import no_grad, torch
from tastemaker.core.registry import SCORERS
from tastemaker.scorers.pixels import unit_pixels


@SCORERS.register("hue")
class Hue:
    """Closeness of a picture's colours to a hue, from -1 (the opposite) to 1; 0 where it is grey.

    `score = sum_p c_p cos(h_p - target) / sum_p c_p`, with each pixel's hue `h` and chroma
    `c = max(r, g, b) - min(r, g, b)`. Grey pixels have no hue and no weight, and a picture of many
    hues in equal parts has 0 as well. A measure and no preference: to look for drifts of colour, or
    to see a training work. The prompt does not enter.

    Args:
        target: Degrees: 0 red, 60 yellow, 120 green, 180 cyan, 240 blue, 300 magenta.

    References:
        Mardia and Jupp (2000), Directional statistics, section 2.2; `tastemaker.metrics.hue`, which
        has the same hues and weights.
    """

    def __init__(
        self,
        *,
        target: Annotated[
            float, Field(ge=0, le=360, description="Degrees: 0 red, 120 green, 240 blue.")
        ],
    ) -> None:
        self.target = target

    def to(self, device: torch.device, dtype: torch.dtype) -> Hue:
        """Return the scorer; it has no network."""
        return self

    @no_grad
    def __call__(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> torch.Tensor:
        """Score pictures; the prompts are not read. See `Scorer`."""
        if not images:
            return torch.empty(0)
        return torch.cat([hue_closeness(unit_pixels(image), self.target) for image in images])

    def score_pixels(self, pixels: torch.Tensor, prompts: Sequence[str]) -> torch.Tensor:
        """Score pixels in [0, 1], with gradient; the prompts are not read. See `PixelScorer`."""
        return hue_closeness(pixels.float(), self.target)


def hue_closeness(pixels: torch.Tensor, target: float) -> torch.Tensor:
    """`sum_p c_p cos(h_p - target) / sum_p c_p`, with gradient wherever a hue has one.

    Args:
        pixels: Shape [images, 3, height, width], in [0, 1].
        target: Degrees.

    Returns:
        Shape [images], in [-1, 1]; 0 for a grey image.

    Example:
        >>> red = torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1)
        >>> [round(hue_closeness(red, target).item(), 4) for target in (0, 60, 180)]
        [1.0, 0.5, -1.0]
    """
    r, g, b = pixels.unbind(1)
    high = pixels.amax(1)
    chroma = high - pixels.amin(1)
    # A grey pixel has no hue: 1 in place of its chroma keeps value and gradient finite.
    c = torch.where(chroma > 0, chroma, 1)
    sixths = torch.where(
        r == high, (g - b) / c, torch.where(g == high, (b - r) / c + 2, (r - g) / c + 4)
    )
    towards = (chroma * torch.cos(math.pi / 3 * sixths - math.radians(target))).sum((1, 2))
    total = chroma.sum((1, 2))
    return towards / torch.where(total > 0, total, 1)
