"""From pixels to what a CLIP image tower takes, with gradient: the twin of its image processor."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import interpolate


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
        pixels = interpolate(pixels, size, mode="bicubic", antialias=True).clamp(0, 1)
    if processor.do_center_crop:
        height, width = processor.crop_size.height, processor.crop_size.width
        top, left = (pixels.shape[-2] - height) // 2, (pixels.shape[-1] - width) // 2
        pixels = pixels[..., top : top + height, left : left + width]
    mean, std = (pixels.new_tensor(v) for v in (processor.image_mean, processor.image_std))
    return (pixels - mean[:, None, None]) / std[:, None, None]


def _resized(height: int, width: int, size: Any) -> tuple[int, int]:
    """Height and width after resizing: a fixed size, or the shorter edge's with the ratio kept."""
    side = size.shortest_edge
    if not side:
        return size.height, size.width
    if height <= width:
        return side, int(side * width / height)
    return int(side * height / width), side
