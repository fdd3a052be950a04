"""Nuisances on pictures small enough to work them out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from tastemaker.scorers.nuisances import NUISANCES


def grey(*rows: tuple[int, ...]) -> Image.Image:
    values = np.array(rows, dtype=np.uint8)
    return Image.fromarray(np.stack([values] * 3, -1))


def changed(name: str, image: Image.Image) -> list[list[int]]:
    """The red channel after a nuisance."""
    found: list[list[int]] = np.asarray(NUISANCES[name](image))[..., 0].tolist()
    return found


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("one grey level more", [[1, 101, 255]]),
        ("brightness x 1.1", [[0, 110, 255]]),
        ("contrast x 1.1", [[0, 97, 255]]),  # 1.1 * (100 - 127.5) + 127.5 = 97.25
        ("saturation x 1.2", [[0, 100, 255]]),  # grey has no colour to strengthen
        ("mirrored", [[255, 100, 0]]),
        ("shifted by one pixel", [[0, 0, 100]]),
    ],
)
def test_values_by_hand(name: str, expected: list[list[int]]) -> None:
    assert changed(name, grey((0, 100, 255))) == expected


def test_blur_flattens_and_sharpening_steepens() -> None:
    edge = grey(*[(50,) * 4 + (200,) * 4] * 8)
    across = {
        name: np.abs(np.diff(changed(name, edge)[4])).max()
        for name in ("blur, radius 0.7", "sharpness x 1.5")
    }
    assert across["blur, radius 0.7"] < 150 < across["sharpness x 1.5"]


@pytest.mark.parametrize("name", NUISANCES)
def test_a_changed_picture_of_the_same_size(name: str) -> None:
    generator = np.random.default_rng(0)
    image = Image.fromarray(generator.integers(30, 220, (16, 24, 3), dtype=np.uint8))
    before = image.tobytes()
    after = NUISANCES[name](image)
    assert (after.size, after.mode) == ((24, 16), "RGB")
    assert after.tobytes() != before
    assert image.tobytes() == before
