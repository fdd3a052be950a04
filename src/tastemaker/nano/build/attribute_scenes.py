"""Labelled pictures for the checker and the examiner: every step draws scenes of its own."""

from dataclasses import replace
from pathlib import Path
from random import Random

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from tastemaker.core.seeding import keyed_generator
from tastemaker.nano.build.art import Sprites, sprites
from tastemaker.nano.build.code import as_bytes, to_float
from tastemaker.nano.build.scenes import COLOURS, CORNERS, SIDE, paste, shifted
from tastemaker.nano.build.vae import to_tensor
from tastemaker.nano.build.wear import Wear
from tastemaker.nano.captions import (
    BACKGROUNDS,
    CONCEPTS,
    POSITIONS,
    SIZES,
    STYLES,
    Scene,
    sample_scene,
)

# The art each network learns from; all other art is unseen by it. Both learn the split "train": in
# the few combinations of "judge" a number could be guessed from concept and background.
TAUGHT: dict[str, tuple[str, ...]] = {
    "checker": ("flat", "flat", "soft", "soft", "plain", "early"),
    "examiner": ("flat", "flat", "soft", "soft", "bold"),
}
UNSEEN: dict[str, tuple[str, ...]] = {"checker": ("bold",), "examiner": ("plain", "early")}
# Share of pictures that no caption describes: nothing at all, or three objects not of a kind.
ODD = 0.2

Labels = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]
"""Classes as `Attributes` has them: counts and places [n, 40], sizes, backgrounds, styles [n].

-1 where there is nothing to be said.
"""


class LabelledScenes(Dataset[tuple[Tensor, Labels]]):
    """Batches of pictures, floats [size, 3, 64, 64] in [-1, 1], with labels; item n of step n.

    Args:
        work: Folder of the build.
        name: Key of `TAUGHT`.
        size: Pictures per batch.
    """

    def __init__(self, work: Path, name: str, size: int) -> None:
        self.name, self.size = name, size
        self.styles = TAUGHT[name]
        self.art: Sprites = sprites(work, tuple(sorted(set(self.styles))))
        self.wear = Wear(work)

    @torch.no_grad()
    def __getitem__(self, step: int) -> tuple[Tensor, Labels]:
        """Draw the scenes of a step; a part through the autoencoder, a part moved and worn."""
        rng, generator = Random(f"{self.name}/{step}"), keyed_generator(self.name, step)
        odd = round(ODD * self.size)
        scenes = [
            replace(sample_scene(rng, "train"), style=rng.choice(self.styles))
            for _ in range(self.size - odd)
        ]
        drawn = [_odd_picture(rng, self.art, self.styles) for _ in range(odd)]
        pictures = torch.cat(
            [to_float(as_bytes(scenes, rng, self.art)), to_tensor([each for each, _ in drawn])]
        )
        parts = [labels(scene) for scene in scenes] + [known for _, known in drawn]
        pictures = self.wear(pictures, rng, generator)
        counts, places, *rest = (torch.tensor(part) for part in zip(*parts, strict=True))
        return pictures, (counts, places, rest[0], rest[1], rest[2])


Known = tuple[list[int], list[int], int, int, int]


def labels(scene: Scene) -> Known:
    """Return the classes of a scene's picture, one entry of `Labels`."""
    counts, places = [0] * len(CONCEPTS), [-1] * len(CONCEPTS)
    names = list(POSITIONS)
    pair = {"left": (0, 1), "right": (1, 0), "above": (2, 3), "below": (3, 2)}
    found = pair[scene.relation] if scene.relation else (-1,)
    if scene.position:
        found = (names.index(scene.position),)
    for concept, place in zip(scene.concepts, found, strict=True):
        number = CONCEPTS.index(concept)
        counts[number], places[number] = scene.count, place
    size = SIZES.index(scene.size) if scene.size else -1
    style = STYLES.index(scene.style) if scene.style in STYLES else -1
    return counts, places, size, BACKGROUNDS.index(scene.background), style


def _odd_picture(rng: Random, art: Sprites, styles: tuple[str, ...]) -> tuple[Image.Image, Known]:
    """Draw nothing, or three objects of two or three kinds, on a background."""
    background, style = rng.choice(BACKGROUNDS), rng.choice(styles)
    colour = [max(0, min(255, channel + rng.randint(-5, 5))) for channel in COLOURS[background]]
    canvas = Image.new("RGB", (SIDE, SIDE), (colour[0], colour[1], colour[2]))
    counts = [0] * len(CONCEPTS)
    if rng.random() < 0.9:
        first, second, third = rng.sample(CONCEPTS, 3)
        flip = rng.choice((-1, 1))
        for concept, (x, y) in zip(
            (first, second, rng.choice((first, second, third))), CORNERS, strict=True
        ):
            counts[CONCEPTS.index(concept)] += 1
            paste(canvas, art[style, concept], shifted(x, flip * y, 28, rng), rng.uniform(-7, 7))
    known = STYLES.index(style) if style in STYLES and any(counts) else -1
    return canvas, (counts, [-1] * len(CONCEPTS), -1, BACKGROUNDS.index(background), known)
