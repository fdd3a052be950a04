"""What a scorer is: pictures and prompts in, one number a picture out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from PIL import Image


class Scorer(Protocol):
    """A scorer, ready to use; its factory is what `SCORERS` registers."""

    def __call__(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> torch.Tensor:
        """Score pictures against their prompts.

        Args:
            images: RGB pictures of any size.
            prompts: One a picture.

        Returns:
            Float scores, shape [images]; higher is better.
        """
        ...

    def to(self, device: torch.device, dtype: torch.dtype) -> Scorer:
        """Move the scorer's network; return the scorer."""
        ...
