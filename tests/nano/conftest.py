"""A folder to build the embedded model in, without the art."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from tastemaker.nano.build.art import SETS
from tastemaker.nano.build.latents import SceneBatches
from tastemaker.nano.captions import CONCEPTS


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A folder of a build with discs for art."""
    for number, concept in enumerate(CONCEPTS):
        disc = Image.new("RGBA", (64, 64))
        ImageDraw.Draw(disc).ellipse((4, 4, 60, 60), (6 * number, 255 - 6 * number, 90, 255))
        for style in SETS:
            file = tmp_path / "art" / style / f"{concept}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            disc.save(file)
    SceneBatches(tmp_path, 1)  # fits the latent code
    return tmp_path
