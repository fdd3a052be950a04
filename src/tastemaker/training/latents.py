"""Latents of encoded images, in buckets of one size."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from tastemaker.backbones import Conditioning
from tastemaker.storage.encodings import Shards

CONDITIONING = "conditioning."
"""Prefix of what else a shard of images keeps: SDXL's sizes."""


class Latents:
    """Posteriors of images, in the units that the denoiser sees, read as they are asked for.

    Args:
        shards: Rows of `mean`, of `std` where a posterior is sampled, and of conditioning.
        of_shards: Shape of the latents in each shard: channels, height and width.
        shapes: Shape of each bucket.
    """

    def __init__(
        self,
        shards: Shards,
        of_shards: Sequence[tuple[int, int, int]],
        shapes: Sequence[tuple[int, int, int]],
    ) -> None:
        self.shards, self.shapes = shards, list(shapes)
        numbers = [self.shapes.index(each) if each in self.shapes else -1 for each in of_shards]
        self._buckets = np.array(numbers)

    def bucket(self, images: torch.Tensor) -> torch.Tensor:
        """Return the numbers of images' buckets."""
        return torch.from_numpy(self._buckets[images.numpy() // self.shards.size])

    def take(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Read images of one bucket.

        Args:
            images: Their rows.

        Returns:
            Mean and standard deviation, float32, [images, channels, h, w]; None where no image has
            a deviation, since the model sampled all of them itself or the posterior is not sampled.
        """
        rows = [self.shards.read([row]) for row in images.tolist()]
        mean = torch.cat([row["mean"].float() for row in rows])
        if not any("std" in row for row in rows):
            return mean, None
        none = torch.zeros_like(mean[:1])
        return mean, torch.cat([row["std"].float() if "std" in row else none for row in rows])

    def conditioning(self, images: torch.Tensor) -> Conditioning:
        """Read images' conditioning beside their prompts; empty in most families."""
        rows = self.shards.read(images.tolist(), CONDITIONING)
        return {name.removeprefix(CONDITIONING): value for name, value in rows.items()}
