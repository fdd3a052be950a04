"""Hues against colours whose angles are known, and differences around the circle."""

from __future__ import annotations

import colorsys
import math

import numpy as np
import pytest
from PIL import Image

from tastemaker.core.errors import TastemakerError
from tastemaker.metrics.hue import hue_difference, hue_distance, mean_hue


def picture(*colours: str | tuple[int, ...], mode: str = "RGB") -> Image.Image:
    """One row, a colour a pixel."""
    image = Image.new("RGB", (len(colours), 1))
    for x, colour in enumerate(colours):
        image.paste(colour, (x, 0, x + 1, 1))
    return image.convert(mode)


def noise(seed: int, high: int = 256) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, high, (9, 13, 3), dtype=np.uint8)
    return Image.fromarray(values)


@pytest.mark.parametrize(
    ("colour", "hue"),
    [
        ("red", 0),
        ("yellow", 60),
        ("lime", 120),
        ("cyan", 180),
        ("blue", 240),
        ("magenta", 300),
        ((255, 127, 0), 60 * 127 / 255),
        ((255, 0, 51), 360 - 60 * 51 / 255),
        ((100, 90, 80), 30),  # of any saturation
    ],
)
def test_hues_of_single_colours(colour: str | tuple[int, ...], hue: float) -> None:
    measured = mean_hue(picture(colour, colour))
    assert measured == pytest.approx(hue, abs=1e-9)
    assert measured is not None
    assert 0 <= measured < 360


def test_every_colour_has_the_hue_of_colorsys() -> None:
    for r, g, b in np.random.default_rng(0).integers(0, 256, (300, 3)).tolist():
        if len({r, g, b}) > 1:
            measured = mean_hue(picture((r, g, b)))
            assert measured is not None
            assert hue_difference(measured, 360 * colorsys.rgb_to_hsv(r, g, b)[0]) < 1e-9


def test_the_mean_goes_the_short_way_round() -> None:
    # 350 and 10 degrees, both of full chroma: 0, not 180.
    measured = mean_hue(picture((240, 0, 40), (240, 40, 0)))
    assert measured is not None
    assert hue_difference(measured, 0) < 1e-9


def test_pixels_weigh_by_their_chroma() -> None:
    # Red of chroma 255 at 0 degrees, green of chroma 85 at 120: x = 255 - 85 / 2, y = 85 sin 120.
    expected = math.degrees(math.atan2(85 * math.sqrt(3) / 2, 255 - 85 / 2))
    assert mean_hue(picture("red", (0, 85, 0))) == pytest.approx(expected, abs=1e-9)
    assert mean_hue(picture("red", (170, 255, 170))) == pytest.approx(expected, abs=1e-9)


def test_grey_pixels_have_no_say() -> None:
    with_grey = picture("blue", "white", "black", "grey", "white")
    assert mean_hue(with_grey) == pytest.approx(240, abs=1e-9)


def test_order_and_brightness_change_nothing() -> None:
    image = noise(1, high=120)
    expected = mean_hue(image)
    assert mean_hue(image.transpose(Image.Transpose.ROTATE_180)) == pytest.approx(expected)
    assert mean_hue(image.point(lambda value: 2 * value)) == pytest.approx(expected)


@pytest.mark.parametrize(
    "image",
    [
        picture("grey"),
        picture("black", "white", "black"),
        picture("red", mode="L"),
        picture("red", "cyan"),
        picture("red", "lime", "blue"),
        Image.new("1", (1, 1)),
    ],
)
def test_images_without_a_mean_hue(image: Image.Image) -> None:
    assert mean_hue(image) is None


@pytest.mark.parametrize("mode", ["RGBA", "CMYK"])
def test_modes_are_converted(mode: str) -> None:
    image = noise(2)
    assert mean_hue(image.convert(mode)) == pytest.approx(mean_hue(image), abs=1e-9)


@pytest.mark.parametrize(
    ("a", "b", "difference"),
    [(350, 10, 20), (10, 350, 20), (0, 180, 180), (90, 90, 0), (0, 360, 0), (0, 190, 170)],
)
def test_differences_go_around_the_circle(a: float, b: float, difference: float) -> None:
    assert hue_difference(a, b) == difference


def test_distances_by_hand() -> None:
    # 350 against 10, 0 against 240, 60 against 60: (20 + 120 + 0) / 3.
    images = [picture((240, 0, 40)), picture("red"), picture("yellow")]
    base = [picture((240, 40, 0)), picture("blue"), picture((99, 99, 0))]
    assert hue_distance(iter(images), iter(base)) == pytest.approx(140 / 3, abs=1e-9)
    assert hue_distance(base, images) == pytest.approx(140 / 3, abs=1e-9)
    assert hue_distance(images, images) == 0


def test_pairs_without_a_hue_are_left_out() -> None:
    images = [picture("red"), picture("grey"), picture("red")]
    base = [picture("yellow"), picture("red"), picture("white")]
    assert hue_distance(images, base) == pytest.approx(60, abs=1e-9)


def test_bad_pairs() -> None:
    red, grey = picture("red"), picture("grey")
    with pytest.raises(TastemakerError, match="none of 0 pairs"):
        hue_distance([], [])
    with pytest.raises(TastemakerError, match="none of 2 pairs of images has a hue"):
        hue_distance([red, grey], [grey, red])
    with pytest.raises(TastemakerError, match="more images on one side"):
        hue_distance([red, red], [red])
    with pytest.raises(TastemakerError, match="more images on one side"):
        hue_distance([], [red])
