"""Pictures in and out of records: lossless bytes, and tensors for networks."""

from __future__ import annotations

import functools
import hashlib
import io
import struct
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from tastemaker.config.datasets import MAX_PIXELS
from tastemaker.core.errors import TastemakerError

if TYPE_CHECKING:
    import torch

# What Pillow's readers raise where a file breaks its format's rules.
BROKEN = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    LookupError,
    TypeError,
    ArithmeticError,
    RuntimeError,
    MemoryError,
    struct.error,
    Image.DecompressionBombError,
)

Read = TypeVar("Read")

FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
"""Of pictures, whatever a file is called; some of Pillow's others run programs of their own."""

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


def encode_png(image: Image.Image) -> bytes:
    """Encode a picture as PNG: lossless, the same bytes every time."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def decode(data: bytes, name: str) -> Image.Image:
    """Decode a stored picture to RGB.

    Args:
        data: Encoded bytes of any format that Pillow reads.
        name: The candidate's id or file, for the message.

    Returns:
        The picture, RGB.

    Raises:
        TastemakerError: The bytes are no picture.
    """
    try:
        return _read(data, lambda image: image.convert("RGB"))
    except TastemakerError as error:
        raise TastemakerError(
            f"image of {name} is corrupt ({error}); remove it from the pool, or make it again."
        ) from None


def decode_photograph(data: bytes, max_pixels: int = 2 * MAX_PIXELS) -> Image.Image:
    """Decode a picture from outside to what a viewer shows: see `upright`.

    Args:
        data: Encoded bytes of any format that Pillow reads.
        max_pixels: Where the file says that it has more, nothing of it is decoded: a few kilobytes
            may hold gigabytes of one colour.

    Returns:
        The picture, RGB.

    Raises:
        TastemakerError: The bytes are no picture, are torn, or hold too many pixels.
    """
    return read_photograph(data, max_pixels).image


class Decoded(NamedTuple):
    """A picture from outside.

    Attributes:
        image: What a viewer shows, RGB in sRGB.
        as_stored: Whether the file's bytes may be kept, since their pixels are just these.
        notes: What became of it that its owner may want to know, to be counted.
    """

    image: Image.Image
    as_stored: bool
    notes: tuple[str, ...]


def read_photograph(data: bytes, max_pixels: int = 2 * MAX_PIXELS) -> Decoded:
    """Decode a picture from outside to what a viewer shows, and say what that took.

    Args:
        data: As for `decode_photograph`.
        max_pixels: The same.

    Returns:
        The picture. Its bytes may be kept where it is neither turned nor transparent, has eight
        bits, one frame, and the colours of sRGB.

    Raises:
        TastemakerError: As for `decode_photograph`.
    """

    def shown(image: Image.Image) -> Decoded:
        if image.width * image.height > max_pixels:
            raise ValueError(
                f"{image.width} x {image.height} pixels are more than max_pixels={max_pixels}"
            )
        plain = image.mode in {"RGB", "L"} and not image.has_transparency_data
        several = getattr(image, "is_animated", False)
        straight = image.getexif().get(ORIENTATION, 1) == 1
        seen, note = _upright(image)
        notes = tuple(each for each in (FIRST_FRAME if several else "", note) if each)
        return Decoded(seen, plain and straight and not notes, notes)

    try:
        with warnings.catch_warnings():  # the limit is ours; Pillow's own, twice as much, stays
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            return _read(data, shown)
    except TastemakerError as error:
        raise TastemakerError(f"no readable image ({error})") from None


def upright(image: Image.Image) -> Image.Image:
    """Turn a picture as its EXIF data say, lay it over white and bring it to eight bits of sRGB.

    Args:
        image: Any mode: grey, palette, CMYK, with transparency, 16 bits per channel; its pixels are
            in the colours of its embedded ICC profile, or in sRGB where it has none that is valid.

    Returns:
        The picture, RGB, without EXIF data or profile.

    Raises:
        ValueError: The pixels are floating-point numbers, whose range nothing tells.
    """
    return _upright(image)[0]


def _upright(image: Image.Image) -> tuple[Image.Image, str]:
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
        PyCMSError, OSError, TypeError, ValueError: It is no profile.
        LookupError: It is one for pixels of another kind than the picture's.
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


def crop_box(image: Image.Image, box: tuple[int, int, int, int]) -> Image.Image:
    """Cut a part of a picture out.

    Args:
        image: The picture, upright.
        box: Left, top, right and bottom edge of the part to keep, pixels; right and bottom are
            outside it.

    Returns:
        The part.

    Raises:
        TastemakerError: The box is empty, or a part of it is outside the picture.
    """
    left, top, right, bottom = box
    if not (0 <= left < right <= image.width and 0 <= top < bottom <= image.height):
        raise TastemakerError(
            f"box {list(box)} is empty or not inside the upright image of"
            f" {image.width} x {image.height} pixels"
        )
    return image.crop(box)


def square(image: Image.Image, size: int) -> Image.Image:
    """Crop the middle square and scale it.

    Args:
        image: Any size.
        size: Side of the result in pixels.

    Returns:
        The picture, `size` x `size`.
    """
    return fit(image, size, size)


def fit(image: Image.Image, width: int, height: int) -> Image.Image:
    """Crop the largest middle part of an aspect ratio and scale it.

    Args:
        image: Any size.
        width: Of the result, pixels.
        height: Of the result, pixels.

    Returns:
        The picture, `width` x `height`.
    """
    return ImageOps.fit(image, (width, height), Image.Resampling.LANCZOS)


def size_of(data: bytes) -> tuple[int, int]:
    """Height and width of an encoded picture, from its header.

    Raises:
        TastemakerError: The bytes are no picture.
    """
    try:
        with _opened(data) as image:
            return image.height, image.width
    except BROKEN as error:
        raise TastemakerError(f"an image is broken: {error}; import its pool again.") from error


def sizes_told(
    image: Image.Image, box: tuple[int, int, int, int] | None, width: int, height: int
) -> dict[str, list[int]]:
    """Size and crop conditioning of SDXL: `original_size` and `crops_coords_top_left`.

    Args:
        image: The photograph, upright and whole.
        box: The part of it that `fit` was given; None for all of it.
        width: Of the crop, after scaling.
        height: Of the crop, after scaling.

    Returns:
        `original_size` as [height, width] and `crop_corner` as [top, left].

    Example:
        >>> sizes_told(Image.new("RGB", (300, 200)), None, 100, 100)
        {'original_size': [200, 300], 'crop_corner': [0, 25]}
    """
    left, top, right, bottom = box or (0, 0, image.width, image.height)
    scale = max(width / (right - left), height / (bottom - top))
    corner = (
        top * scale + ((bottom - top) * scale - height) / 2,
        left * scale + ((right - left) * scale - width) / 2,
    )
    return {
        "original_size": [image.height, image.width],
        "crop_corner": [round(each) for each in corner],
    }


def pixel_hash(image: Image.Image) -> str:
    """Hash size and pixels: equal for copies of a picture, whatever their files."""
    return hashlib.sha256(f"{image.width} {image.height} ".encode() + image.tobytes()).hexdigest()


def to_pixels(images: Sequence[Image.Image]) -> torch.Tensor:
    """Stack pictures of one size as float32 in [-1, 1], shape [images, 3, height, width].

    Raises:
        TastemakerError: The sizes differ.
    """
    import torch

    sizes = {image.size for image in images}
    if len(sizes) > 1:
        raise TastemakerError(
            f"images of one batch differ in size: {sorted(sizes)}; bring them to one size first."
        )
    array = np.stack([np.asarray(image, dtype=np.float32) for image in images])
    return torch.from_numpy(array).permute(0, 3, 1, 2) / 127.5 - 1


def _opened(data: bytes) -> Image.Image:
    Image.init()  # of formats by name Pillow knows the commonest alone before that
    return Image.open(io.BytesIO(data), formats=FORMATS)


def _read(data: bytes, convert: Callable[[Image.Image], Read]) -> Read:
    try:
        return convert(_opened(data))
    except UnidentifiedImageError:
        # Its own text holds an address in memory, another one each time.
        raise TastemakerError(f"of no format that is read: {', '.join(FORMATS)}") from None
    except BROKEN as error:
        raise TastemakerError(str(error)) from None
