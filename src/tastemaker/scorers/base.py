"""Protocols of scorers: from pictures and prompts to one number per picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import torch
    from PIL import Image


class Scorer(Protocol):
    """A scorer, ready to use; its factory is what `SCORERS` registers."""

    def __call__(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> torch.Tensor:
        """Score pictures against their prompts.

        Args:
            images: RGB pictures of any size.
            prompts: One per picture.

        Returns:
            Float scores, shape [images]; higher is better.
        """
        ...

    def to(self, device: torch.device, dtype: torch.dtype) -> Scorer:
        """Move the scorer's network; return the scorer."""
        ...


class PixelScorer(Scorer, Protocol):
    """A scorer that gradients pass through, from its scores back to the pixels."""

    def score_pixels(self, pixels: torch.Tensor, prompts: Sequence[str]) -> torch.Tensor:
        """Score pixels against their prompts, with gradient.

        Args:
            pixels: Shape [images, 3, height, width], in [0, 1], on the scorer's device.
            prompts: One per image.

        Returns:
            Float scores, shape [images], with their graph; higher is better.
        """
        ...

    def to(self, device: torch.device, dtype: torch.dtype) -> PixelScorer:
        """Move the scorer's network; return the scorer."""
        ...


@dataclass(frozen=True)
class Subject:
    """Marks an option that names a folder of photographs, or a registered subject."""


@dataclass(frozen=True)
class Needs:
    """Marks an option some of whose values need a package that is not always installed.

    Attributes:
        module: Imported module.
        extra: The extra that installs it.
        suffix: Suffix of the files that need it.
    """

    module: str
    extra: str
    suffix: str
