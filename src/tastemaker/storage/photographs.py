"""Photographs from outside, decoded as a viewer shows them: upright, over white, in sRGB."""

from __future__ import annotations

import functools
import io
import warnings
from typing import NamedTuple

from PIL import Image, ImageCms, ImageOps

from tastemaker.config.datasets import MAX_PIXELS
from tastemaker.core.errors import TastemakerError
from tastemaker.core.lazy_torch import np
from tastemaker.storage.images import read_image

FIRST_FRAME = "with several frames or pages, of which the first is taken"
CONVERTED = "with colours converted to sRGB from the embedded profile"
NO_PROFILE = "with a colour profile that is not valid for it, so that its pixels count as sRGB"

SAME_COLOUR = 2
"""Levels of 255 by which profiles of sRGB differ from one another."""

_PROFILED = {
    "RGB": ("RGB", {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX"}),
    "GRAY": ("L", {"1", "L", "LA"}),
    "CMYK": ("CMYK", {"CMYK"}),
}
"""Colour space of a profile to the mode that it is applied in, and the modes that it may be in."""

ORIENTATION = 0x0112
"""EXIF's tag for how the camera was turned."""


class Decoded(NamedTuple):
    """A picture from outside.

    Attributes:
        image: The picture as a viewer shows it, RGB in sRGB.
        as_stored: True if the file's bytes may be kept, since their pixels are just these.
        notes: Conversions that its owner may want to know of, to be counted.
    """

    image: Image.Image
    as_stored: bool
    notes: tuple[str, ...]


def read_photograph(data: bytes, max_pixels: int = 2 * MAX_PIXELS) -> Decoded:
    """Decode a photograph to the picture that a viewer shows.

    Args:
        data: Encoded bytes of any format that Pillow reads.
        max_pixels: Most pixels of a file; one that states more is not decoded, since a few
            kilobytes may expand to gigabytes of one colour.

    Returns:
        The picture. Its bytes may be kept if it is neither turned nor transparent, has eight
        bits, one frame, and the colours of sRGB.

    Raises:
        TastemakerError: The bytes are not a picture, are torn, or contain too many pixels.
    """

    def shown(image: Image.Image) -> Decoded:
        if image.width * image.height > max_pixels:
            raise ValueError(
                f"{image.width} x {image.height} pixels are more than max_pixels={max_pixels}"
            )
        plain = image.mode in {"RGB", "L"} and not image.has_transparency_data
        several = getattr(image, "is_animated", False)
        straight = image.getexif().get(ORIENTATION, 1) == 1
        seen, note = upright(image)
        notes = tuple(each for each in (FIRST_FRAME if several else "", note) if each)
        return Decoded(seen, plain and straight and not notes, notes)

    try:
        with warnings.catch_warnings():  # the limit is ours; Pillow's own, twice as much, stays
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            return read_image(data, shown)
    except TastemakerError as error:
        raise TastemakerError(f"no readable image ({error})") from None


def upright(image: Image.Image) -> tuple[Image.Image, str]:
    """Turn a picture by its EXIF data, lay it over white and convert it to eight bits of sRGB.

    Args:
        image: Any mode: grey, palette, CMYK, with transparency, 16 bits per channel; its pixels are
            in the colours of its embedded ICC profile, or in sRGB without a valid one.

    Returns:
        The picture, RGB, without EXIF data or profile; and `CONVERTED`, `NO_PROFILE` or "".

    Raises:
        ValueError: The pixels are floating-point numbers of unknown range.
    """
    turned = ImageOps.exif_transpose(image)
    if turned.mode == "F":
        raise ValueError("floating-point pixels; save it with 8 or 16 bits per channel")
    profile = turned.info.get("icc_profile")
    if turned.mode.startswith("I"):
        grey = np.rint(np.clip(np.asarray(turned), 0, 65535) / 257)
        turned = Image.fromarray(grey.astype(np.uint8))
    turned, note = _in_srgb(turned, profile)
    if turned.has_transparency_data:
        over = turned.convert("RGBA")
        turned = Image.alpha_composite(Image.new("RGBA", over.size, "white"), over)
    seen = turned.convert("RGB")
    seen.info = {}  # a profile that stayed would be applied twice
    return seen, note


def _in_srgb(image: Image.Image, profile: bytes | None) -> tuple[Image.Image, str]:
    """Convert pixels from the colours of a profile to those of sRGB, and say whether that was done.

    Args:
        image: Eight bits, any mode.
        profile: ICC profile embedded in its file.

    Returns:
        The picture, and `CONVERTED`, `NO_PROFILE` or nothing.
    """
    if not profile:
        return image, ""
    try:
        mode, transform = _transform(profile, image.mode)
    except (ImageCms.PyCMSError, OSError, LookupError, TypeError, ValueError):
        return image, NO_PROFILE
    if transform is None:
        return image, ""
    alpha = image.convert("RGBA").getchannel("A") if image.has_transparency_data else None
    converted = ImageCms.applyTransform(image.convert(mode), transform)
    assert converted is not None  # it is when not done in place
    if alpha is not None:
        converted.putalpha(alpha)
    return converted, CONVERTED


@functools.lru_cache(maxsize=16)
def _transform(profile: bytes, mode: str) -> tuple[str, ImageCms.ImageCmsTransform | None]:
    """Mode that a profile is for and its transform to sRGB; None where it is sRGB's own.

    Raises:
        PyCMSError, OSError, TypeError, ValueError: It is not a profile.
        LookupError: It is for pixels of another kind than the picture's.
    """
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    target, modes = _PROFILED[source.profile.xcolor_space.strip()]
    if mode not in modes:
        raise LookupError(mode)
    transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), target, "RGB")
    if target == "CMYK":
        return target, transform
    steps = np.arange(0, 256, 32 if target == "RGB" else 1, dtype=np.uint8)
    grid = np.stack(np.meshgrid(*[steps] * len(target), indexing="ij"), axis=-1)
    sample = Image.fromarray(np.squeeze(grid.reshape(len(steps), -1, len(target))))
    seen = ImageCms.applyTransform(sample, transform)
    change = np.abs(np.asarray(seen, np.int16) - np.asarray(sample.convert("RGB"), np.int16))
    return target, transform if change.max() > SAME_COLOUR else None
