"""Pictures in and out of records: lossless bytes, and tensors for networks."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError

from tastemaker.errors import TastemakerError


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
        return Image.open(io.BytesIO(data)).convert("RGB")
    except (UnidentifiedImageError, OSError, ValueError, Image.DecompressionBombError) as error:
        raise TastemakerError(
            f"image of {name} is corrupt ({error}); remove it from the pool, or make it again."
        ) from None


def square(image: Image.Image, size: int) -> Image.Image:
    """Crop the middle square and scale it.

    Args:
        image: Any size.
        size: Side of the result in pixels.

    Returns:
        The picture, `size` x `size`.
    """
    return ImageOps.fit(image, (size, size), Image.Resampling.LANCZOS)


def to_pixels(images: Sequence[Image.Image]) -> torch.Tensor:
    """Stack pictures of one size as float32 in [-1, 1], shape [images, 3, height, width].

    Raises:
        TastemakerError: The sizes differ.
    """
    sizes = {image.size for image in images}
    if len(sizes) > 1:
        raise TastemakerError(
            f"images of one batch differ in size: {sorted(sizes)}; bring them to one size first."
        )
    array = np.stack([np.asarray(image, dtype=np.float32) for image in images])
    return torch.from_numpy(array).permute(0, 3, 1, 2) / 127.5 - 1
