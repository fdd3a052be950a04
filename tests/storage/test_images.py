"""Pictures from outside are what a viewer shows; what that took is said."""

import io

import numpy as np
import pytest
from PIL import Image, ImageCms

from pictures import SRGB, encoded, icc_profile, noise
from tastemaker.core.errors import TastemakerError
from tastemaker.storage import photographs
from tastemaker.storage.images import encode_png
from tastemaker.storage.photographs import read_photograph

# sRGB's curve over linear light: 255 (1.055 (v / 255)^(1 / 2.4) - 0.055) for v = 128, 32, 0.
LINEAR = {128: 188, 32: 99, 0: 0}


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "L", "LA", "I;16"])
def test_pixels_are_what_their_profile_says(mode: str) -> None:
    profile = icc_profile(1.0, SRGB if mode.startswith(("RGB", "P")) else ())
    for value, seen in LINEAR.items():
        image = Image.new("RGB", (4, 4), (value, value, value))
        if mode == "I;16":
            image = Image.fromarray(np.full((4, 4), value * 257, np.uint16))
        else:  # conversion to a palette would dither
            image = image.quantize() if mode == "P" else image.convert(mode)
        given = encoded(image, icc_profile=profile)
        picture = read_photograph(given)
        assert picture.notes == (photographs.CONVERTED,)
        assert not picture.as_stored
        assert np.abs(np.asarray(picture.image, int) - seen).max() <= 1
        # The pool holds the colours themselves: no reader converts them again.
        assert "icc_profile" not in Image.open(io.BytesIO(encode_png(picture.image))).info


def test_transparent_pixels_keep_their_share_of_white() -> None:
    image = Image.new("RGBA", (4, 4), (128, 128, 128, 51))  # a fifth of it
    given = encoded(image, icc_profile=icc_profile(1.0, SRGB))
    assert np.abs(np.asarray(read_photograph(given).image, int) - (188 + 4 * 255) / 5).max() <= 1


def test_bytes_in_the_colours_of_srgb_are_kept() -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    picture = read_photograph(encoded(noise(0), icc_profile=srgb))
    assert (picture.as_stored, picture.notes) == (True, ())
    assert picture.image.tobytes() == noise(0).tobytes()


@pytest.mark.parametrize("profile", [b"none", icc_profile(2.2)[:200], icc_profile(2.2)])
def test_a_profile_that_is_not_valid_is_said(profile: bytes) -> None:
    """Torn, cut off, or of grey in a picture of colours: the pixels stay as they are."""
    picture = read_photograph(encoded(noise(0), icc_profile=profile))
    assert (picture.as_stored, picture.notes) == (False, (photographs.NO_PROFILE,))
    assert picture.image.tobytes() == noise(0).tobytes()


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_the_first_of_several_frames_is_taken_and_said(kind: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    options = {"lossless": True} if kind == "WEBP" else {}
    given = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    picture = read_photograph(given)
    assert (picture.as_stored, picture.notes) == (False, (photographs.FIRST_FRAME,))
    assert picture.image.tobytes() == frames[0].tobytes()


def test_what_a_program_would_draw_is_not_read() -> None:
    with pytest.raises(TastemakerError, match="no format that is read"):
        read_photograph(encoded(noise(0), "EPS"))
