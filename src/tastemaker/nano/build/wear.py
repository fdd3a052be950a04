"""Pictures as a network must also read them: through the autoencoder, moved and worn."""

from io import BytesIO
from pathlib import Path
from random import Random

import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate, pad

from tastemaker.nano.build.art import sprites
from tastemaker.nano.build.code import code
from tastemaker.nano.build.scenes import SIDE
from tastemaker.nano.build.vae import load, to_pictures, to_tensor

DECODED, WORN, MOVED = 1 / 4, 1 / 4, 1 / 2


class Wear:
    """Decode a quarter of pictures from noisy latents, move half of them, wear a quarter.

    Args:
        work: Folder of the build.
    """

    def __init__(self, work: Path) -> None:
        self.encode = code(work, sprites(work))
        self.vae = load(work).to(memory_format=torch.channels_last)  # twice as fast on a CPU

    @torch.no_grad()
    def __call__(self, pictures: Tensor, rng: Random, generator: torch.Generator) -> Tensor:
        """Return the pictures changed, [pictures, 3, 64, 64] in [-1, 1]."""
        pictures = pictures.clone()
        through = torch.rand(len(pictures), generator=generator) < DECODED
        latents = self.encode(pictures[through])
        spread = 0.4 * torch.rand((len(latents), 1, 1, 1), generator=generator)
        latents = latents + spread * torch.randn(latents.shape, generator=generator)
        latents = latents.contiguous(memory_format=torch.channels_last)
        pictures[through] = self.vae.decode(latents).sample.clamp(-1, 1)
        return torch.stack([_worn(_moved(each, rng), rng) for each in pictures])


def _moved(picture: Tensor, rng: Random) -> Tensor:
    """Move half of the pictures by up to three pixels; the edge repeats."""
    if rng.random() > MOVED:
        return picture
    x, y = rng.randint(0, 6), rng.randint(0, 6)
    return pad(picture[None], (3, 3, 3, 3), mode="replicate")[0, :, y : y + SIDE, x : x + SIDE]


def _worn(picture: Tensor, rng: Random) -> Tensor:
    """Wear a quarter of the pictures: blur, noise, another contrast, bends, or JPEG."""
    if rng.random() > WORN:
        return picture
    kind, amount = rng.choice(("blur", "noise", "contrast", "bend", "jpeg")), rng.random()
    generator = torch.Generator().manual_seed(rng.getrandbits(40))
    if kind == "blur":
        small = avg_pool2d(picture[None], rng.choice((2, 3)), ceil_mode=True)
        blurred = interpolate(small, size=SIDE, mode="bilinear")[0]
        worn = torch.lerp(picture, blurred, 0.3 + 0.7 * amount)
    elif kind == "noise":
        worn = picture + 0.2 * amount * torch.randn(picture.shape, generator=generator)
    elif kind == "contrast":
        worn = (0.8 + 0.4 * amount) * picture + rng.uniform(-0.1, 0.1)
    elif kind == "bend":
        worn = bent(picture, 0.08 * amount, generator)
    else:
        file = BytesIO()
        to_pictures(picture[None])[0].save(file, "JPEG", quality=30 + round(60 * amount))
        worn = to_tensor([Image.open(file)])[0]
    return worn.clamp(-1, 1)


def bent(picture: Tensor, amount: float, generator: torch.Generator) -> Tensor:
    """Bend a picture smoothly, by an amount in shares of half its side."""
    ticks = torch.linspace(-1, 1, 64)
    grid = torch.stack(torch.meshgrid(ticks, ticks, indexing="xy"), dim=-1)
    coarse = amount * torch.randn((1, 2, 6, 6), generator=generator)
    shift = interpolate(coarse, size=64, mode="bicubic")[0].permute(1, 2, 0)
    bent: Tensor = torch.nn.functional.grid_sample(
        picture[None], (grid + shift)[None], padding_mode="border", align_corners=False
    )[0]
    return bent
