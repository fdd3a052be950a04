"""The U-Net's data: every step draws scenes of its own."""

from pathlib import Path
from random import Random

import torch
from torch import Tensor
from torch.utils.data import Dataset

from tastemaker.core.seeding import keyed_generator
from tastemaker.nano.build.art import sprites
from tastemaker.nano.build.code import as_bytes, code, to_float
from tastemaker.nano.build.text import tokenize, tokenizer
from tastemaker.nano.captions import caption, sample_scene

# Standard deviation of the autoencoder's posterior, part of what the decoder learns to undo.
SPREAD = 0.05
DROPOUT = 0.1

Batch = tuple[Tensor, Tensor, Tensor, Tensor]
"""Latents, token ids, timesteps and noise."""


class SceneBatches(Dataset[Batch]):
    """Batches of fresh scenes, item n that of step n.

    Args:
        work: Folder of the build.
        size: Scenes per batch.
    """

    def __init__(self, work: Path, size: int) -> None:
        self.size = size
        self.art, self.words = sprites(work), tokenizer(work)
        self.encode = code(work, self.art)

    @torch.no_grad()
    def __getitem__(self, step: int) -> Batch:
        """Draw the scenes of a step, their latents, and the step's timesteps and noise."""
        rng, generator = Random(f"unet/{step}"), keyed_generator("unet", step)
        scenes = [sample_scene(rng, "train") for _ in range(self.size)]
        mean = self.encode(to_float(as_bytes(scenes, rng, self.art)))
        ids = tokenize(
            self.words, ["" if rng.random() < DROPOUT else caption(scene) for scene in scenes]
        )
        latents = mean + SPREAD * torch.randn(mean.shape, generator=generator)
        return latents, ids, *timesteps_and_noise(latents, generator)


def timesteps_and_noise(latents: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Noise, and timesteps that are stratified: one from each of as many equal intervals."""
    size = len(latents)
    share = (torch.arange(size) + torch.rand(size, generator=generator)) / size
    return (share * 1000).long(), torch.randn(latents.shape, generator=generator)
