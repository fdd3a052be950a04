"""Captioned pictures for the two CLIP scorers: every step draws scenes of its own."""

from dataclasses import replace
from pathlib import Path
from random import Random

import torch
from torch import Tensor
from torch.utils.data import Dataset

from tastemaker.core.seeding import keyed_generator
from tastemaker.nano.build.art import Sprites, sprites
from tastemaker.nano.build.generated import SPLITS
from tastemaker.nano.build.negatives import changed
from tastemaker.nano.build.scenes import SIDE, Placed, render_placed
from tastemaker.nano.build.text import tokenize, tokenizer
from tastemaker.nano.build.vae import to_tensor
from tastemaker.nano.build.wear import Wear
from tastemaker.nano.captions import (
    CONCEPTS,
    JUDGE_STYLES,
    Scene,
    caption,
    sample_scene,
    split_of,
)

# The styles that the model draws, which both must know, and art that the other scorer never saw.
ART: dict[str, tuple[str, ...]] = {
    "preference": ("flat", "flat", "soft", "soft", "plain", "early"),
    "judge": ("flat", "flat", "soft", "soft", "bold"),
}
CELL = 8

Captioned = tuple[Tensor, Tensor, Tensor, Tensor]
"""Pictures [n, 3, 64, 64], ids and ids of wrong captions [n, 24], and cells [n, 64]."""


class CaptionedScenes(Dataset[Captioned]):
    """Batches of scenes, the second half those of the first with one named attribute changed.

    Item n is the batch of step n. Cells are the concept in each patch of 8x8 pixels, 0 for none.

    Args:
        work: Folder of the build.
        scorer: Key of `ART`.
        size: Pictures per batch, an even number.
    """

    def __init__(self, work: Path, scorer: str, size: int) -> None:
        self.scorer, self.size = scorer, size
        self.art: Sprites = sprites(work, tuple(sorted(set(ART[scorer]))))
        self.words, self.wear = tokenizer(work), Wear(work)

    def __getitem__(self, step: int) -> Captioned:
        """Draw the scenes of a step, and wear a part of them."""
        key = f"captioned/{self.scorer}"
        rng, generator = Random(f"{key}/{step}"), keyed_generator(key, step)
        scenes = self.scenes(rng)
        drawn = [render_placed(scene, rng, self.art) for scene in scenes]
        pictures = self.wear(to_tensor([picture for picture, _ in drawn]), rng, generator)
        wrong = [changed(scene, rng) for scene in scenes]
        cells = torch.tensor([cells_of(placed) for _, placed in drawn])
        return pictures, self._ids(scenes), self._ids(wrong), cells

    def scenes(self, rng: Random) -> list[Scene]:
        """Draw the scenes of a batch."""
        scenes = [self._scene(rng) for _ in range(self.size // 2)]
        return scenes + [_neighbour(scene, rng) for scene in scenes]

    def _scene(self, rng: Random) -> Scene:
        scene = replace(sample_scene(rng, SPLITS[self.scorer]), style=rng.choice(ART[self.scorer]))
        named = scene.named if scene.style in JUDGE_STYLES else scene.named - {"style"}
        return replace(scene, named=named)

    def _ids(self, scenes: list[Scene]) -> Tensor:
        return tokenize(self.words, [caption(scene) for scene in scenes])


def cells_of(placed: list[Placed]) -> list[int]:
    """Return the number of the concept, from 1, in each patch of 8x8 pixels; 0 for none.

    Example:
        >>> cells_of([("avocado", (60.0, 4.0, 20.0))])[:9]
        [0, 0, 0, 0, 0, 0, 2, 2, 0]
    """
    middles = [CELL * number + CELL / 2 for number in range(SIDE // CELL)]
    cells = []
    for y in middles:
        for x in middles:
            found = 0
            for concept, (left, top, side) in placed:
                if max(abs(x - left), abs(y - top)) < 0.42 * side:
                    found = 1 + CONCEPTS.index(concept)
            cells.append(found)
    return cells


def _neighbour(scene: Scene, rng: Random) -> Scene:
    """Return the scene with one named attribute changed, of no split that is measured on."""
    while split_of(other := changed(scene, rng)) not in ("train", "judge"):
        pass
    return other
