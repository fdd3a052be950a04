"""From pictures and pixels to what an image tower takes; from pixels with gradient."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from PIL import Image

from tastemaker.core.lazy_torch import F, np, torch

LONGEST = 16
"""Longer side of a picture that is cropped after scaling, in shorter sides."""

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
"""Of CLIP's training pictures, red, green and blue."""


def processed(images: Sequence[Image.Image], processor: Any) -> torch.Tensor:
    """Prepare pictures by a transformers image processor.

    Args:
        images: Of any mode and size; see `trimmed` for long ones.
        processor: In the manner of CLIP's.

    Returns:
        Shape [images, 3, height, width], normalised, float32.
    """
    return processor(images=[trimmed(image) for image in images], return_tensors="pt")[
        "pixel_values"
    ]


def trimmed(image: Image.Image) -> Image.Image:
    """Cut both ends of a very long picture off, of which its middle square shows nothing.

    A processor scales the shorter side first and crops then: one row of 10,000 pixels would become
    224 rows of 2,240,000.

    Args:
        image: Any mode and size.

    Returns:
        The picture, RGB, at most `LONGEST` times as long as wide and with the same middle.
    """
    image = image.convert("RGB")
    width, height = image.size
    most = LONGEST * min(width, height)
    if max(width, height) <= most + 1:
        return image
    # An odd rest stays, so that the middle does not move by half a pixel.
    left, top = max(0, width - most) // 2, max(0, height - most) // 2
    return image.crop((left, top, width - left, height - top))


def prepared(pixels: torch.Tensor, processor: Any) -> torch.Tensor:
    """Resize, crop and normalise as a CLIP image processor does, so that gradients pass.

    Resizing is bicubic with antialiasing, Pillow's kernel, and its overshoot is clipped as Pillow
    clips it; what differs from the processor is that nothing is rounded to 8 bits.

    Args:
        pixels: Shape [images, 3, height, width], in [0, 1].
        processor: A transformers CLIP image processor: its size, crop, mean and std are taken.

    Returns:
        Shape [images, 3, crop height, crop width], normalised.
    """
    if processor.do_resize:
        size = _resized(pixels.shape[-2], pixels.shape[-1], processor.size)
        pixels = F.interpolate(pixels, size, mode="bicubic", antialias=True).clamp(0, 1)
    if processor.do_center_crop:
        height, width = processor.crop_size.height, processor.crop_size.width
        top, left = (pixels.shape[-2] - height) // 2, (pixels.shape[-1] - width) // 2
        pixels = pixels[..., top : top + height, left : left + width]
    return normalised(pixels, processor.image_mean, processor.image_std)


def padded(pixels: torch.Tensor, side: int) -> torch.Tensor:
    """Scale the longer side and fill the rest of the square with black, the picture in the middle.

    Bicubic with antialiasing on numbers that are not rounded: what lies beyond black and white
    stays.

    Args:
        pixels: Shape [images, 3, height, width], in [0, 1].
        side: Of the square, pixels.

    Returns:
        Shape [images, 3, side, side].
    """
    height, width = pixels.shape[-2:]
    scale = side / max(height, width)
    new = max(1, round(height * scale)), max(1, round(width * scale))
    if new != (height, width):
        pixels = F.interpolate(pixels, new, mode="bicubic", antialias=True)
    above, left = (side - new[0]) // 2, (side - new[1]) // 2
    return F.pad(pixels, (left, side - new[1] - left, above, side - new[0] - above))


def normalised(pixels: torch.Tensor, mean: Sequence[float], std: Sequence[float]) -> torch.Tensor:
    """`(pixels - mean) / std`, a channel each; shape [images, 3, height, width]."""
    return (pixels - pixels.new_tensor(mean)[:, None, None]) / pixels.new_tensor(std)[:, None, None]


def unit_pixels(image: Image.Image) -> torch.Tensor:
    """Return a picture of any mode as float32 in [0, 1], shape [1, 3, height, width]."""
    array = np.asarray(image.convert("RGB"), dtype=np.float32) / 255
    return torch.from_numpy(array).permute(2, 0, 1)[None]


def _resized(height: int, width: int, size: Any) -> tuple[int, int]:
    """Height and width after resizing: a fixed size, or the shorter edge's with the ratio kept."""
    side = size.shortest_edge
    if not side:
        return size.height, size.width
    if height <= width:
        return side, int(side * width / height)
    return int(side * height / width), side
