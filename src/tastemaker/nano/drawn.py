"""Scenes drawn from the real art, as captioned images: what photographs are to a large model."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from random import Random

from tastemaker.core.errors import TastemakerError
from tastemaker.datasets.captioned import Captioned
from tastemaker.nano.build.art import Sprites, sprites
from tastemaker.nano.build.scenes import render
from tastemaker.nano.captions import STYLES, caption, sample_scene
from tastemaker.storage.images import encode_png


def drawn_scenes(split: str, number: int, seed: int, work: Path | None) -> Iterator[Captioned]:
    """Draw scenes of a split, in the styles that the model was taught.

    Args:
        split: Key of `captions.SPLITS`.
        number: How many.
        seed: Equal seeds give equal scenes; a longer list begins with the shorter one.
        work: Folder that keeps the art; None: one in the user's cache.

    Yields:
        Pictures of 64x64 pixels with their captions.

    Raises:
        TastemakerError: The art is not there and cannot be fetched or drawn.
    """
    art = _art(work or art_cache())
    for index in range(number):
        rng = Random(f"scene/{split}/{seed}/{index}")
        scene = sample_scene(rng, split)
        picture = encode_png(render(scene, rng, art))
        yield Captioned(f"{split} scene {index}, seed {seed}", picture, caption(scene))


def art_cache() -> Path:
    """Return the folder of the user's cache that keeps the art."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "tastemaker" / "nano"


def _art(work: Path) -> Sprites:
    try:
        return sprites(work, STYLES)
    except (ImportError, OSError, subprocess.CalledProcessError) as error:
        raise TastemakerError(
            f"the art of the scenes is not in {work / 'art'} and cannot be made there ({error})."
            " It is fetched with npm and drawn with resvg-py: install Node.js and the extra"
            " (pip install 'tastemaker[nano]'), and be online the first time."
        ) from None
