"""What a sampler is asked for: images of prompts, from seeds, in steps, with guidance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, replace

import torch

from tastemaker.backbones.conditioning import Conditioning, select


@dataclass(frozen=True, eq=False)
class Drawing:
    """Images to draw: what they show, the noise that each begins with, and how it is removed.

    Args:
        conditioning: Embeddings, one row an image.
        negative: Embeddings of the negative prompt, one row an image.
        seeds: Of the noise, one an image.
        num_inference_steps: Denoising steps of the whole way from noise to image.
        guidance_scale: Classifier-free guidance; 1 or less turns it off.
    """

    conditioning: Conditioning
    negative: Conditioning
    seeds: Sequence[int]
    _: KW_ONLY
    num_inference_steps: int
    guidance_scale: float

    @property
    def guided(self) -> bool:
        """Whether classifier-free guidance is on, which doubles the cost."""
        return self.guidance_scale > 1

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the embeddings, in which the network sees latents too."""
        return next(iter(self.conditioning.values())).dtype

    def generators(self) -> list[torch.Generator]:
        """A generator an image, at its seed, on the CPU so that every device draws the same."""
        return [torch.Generator("cpu").manual_seed(seed) for seed in self.seeds]

    def select(self, rows: Sequence[int]) -> Drawing:
        """Pick some of the images, in the order given."""
        return replace(
            self,
            conditioning=select(self.conditioning, rows),
            negative=select(self.negative, rows),
            seeds=[self.seeds[row] for row in rows],
        )
