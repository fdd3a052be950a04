"""Pictures that tests score and measure: noise, which no two seeds share."""

import numpy as np
from PIL import Image


def noise(seed: int, height: int = 32, width: int = 32) -> Image.Image:
    """Random pixels, the same for one seed and size."""
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)
