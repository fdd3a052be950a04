"""The U-Net's data: every step draws scenes of its own."""

from dataclasses import replace
from pathlib import Path
from random import Random

import torch
from torch import Tensor
from torch.utils.data import Dataset

from tastemaker.core.seeding import keyed_generator
from tastemaker.nano.build.art import sprites
from tastemaker.nano.build.code import as_bytes, code, to_float
from tastemaker.nano.build.text import tokenize, tokenizer
from tastemaker.nano.captions import POSITIONS, Scene, caption, sample_scene

# Standard deviation of the autoencoder's posterior, part of what the decoder learns to undo.
SPREAD = 0.05
DROPOUT = 0.1
# This share of careless captions tells pairs, counts and places wrong, as those of the web do: the
# model knows better than it draws, and preferences have something to mend. Ten times as many such
# steps as the U-Net's stage takes, and it no longer knows.
MISTAKEN = 0.45

Batch = tuple[Tensor, Tensor, Tensor, Tensor]
"""Latents, token ids, timesteps and noise."""


class SceneBatches(Dataset[Batch]):
    """Batches of fresh scenes, item n that of step n.

    Args:
        work: Folder of the build.
        size: Scenes per batch.
        careless: Tell `MISTAKEN` of the captions wrong.
    """

    def __init__(self, work: Path, size: int, *, careless: bool = False) -> None:
        self.size, self.mistaken = size, MISTAKEN if careless else 0.0
        self.art, self.words = sprites(work), tokenizer(work)
        self.encode = code(work, self.art)

    @torch.no_grad()
    def __getitem__(self, step: int) -> Batch:
        """Draw the scenes of a step, their latents, and the step's timesteps and noise."""
        rng, generator = Random(f"unet/{step}"), keyed_generator("unet", step)
        scenes = [sample_scene(rng, "train") for _ in range(self.size)]
        mean = self.encode(to_float(as_bytes(scenes, rng, self.art)))
        told = [mistaken(scene, rng) if rng.random() < self.mistaken else scene for scene in scenes]
        ids = tokenize(
            self.words, ["" if rng.random() < DROPOUT else caption(scene) for scene in told]
        )
        latents = mean + SPREAD * torch.randn(mean.shape, generator=generator)
        return latents, ids, *timesteps_and_noise(latents, generator)


def mistaken(scene: Scene, rng: Random) -> Scene:
    """Return the scene that a careless caption describes: pair reversed, other number or place.

    Example:
        >>> mistaken(Scene(("dog", "tree"), relation="left"), Random(0)).concepts
        ('tree', 'dog')
    """
    if scene.relation:
        return replace(scene, concepts=scene.concepts[::-1])
    if scene.count > 1:
        return replace(scene, count=5 - scene.count)
    if scene.position:
        others = [place for place in POSITIONS if place != scene.position]
        return replace(scene, position=rng.choice(others))
    return scene


def timesteps_and_noise(latents: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Noise, and stratified timesteps of a density that grows as t^0.43.

    Noisy steps decide what is where, which takes a network longest to learn: with timesteps drawn
    alike, 8,500 steps left the two objects of a pair on either side by chance; 500 further steps
    with noisy ones alone put 97 % of them right.
    """
    size = len(latents)
    share = (torch.arange(size) + torch.rand(size, generator=generator)) / size
    return (1000 * share**0.7).long(), torch.randn(latents.shape, generator=generator)
