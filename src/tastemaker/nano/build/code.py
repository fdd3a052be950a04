"""The latent code that the autoencoder learns: four linear features of each 4x4 block.

Three channels are the block's mean colour (brightness and two opponent colours), the fourth is the
pattern inside the block that its neighbourhood's mean colours predict worst: the first principal
component of what is left of brightness after linear regression. All have unit variance. Being known
beforehand, the code lets the autoencoder and the U-Net train side by side, and keeps colours from
being lost, which a freely trained code of this size needs far longer to learn.
"""

from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import conv2d

from tastemaker.nano.build.art import Sprites
from tastemaker.nano.build.scenes import render
from tastemaker.nano.captions import Scene, sample_scene

BLOCK = 4
# Rows: brightness, red against blue, green against red and blue.
OPPONENTS = np.array([[1, 1, 1], [1, 0, -1], [-1, 2, -1]], dtype=np.float32)


@dataclass(frozen=True, slots=True)
class Code:
    """A convolution of stride 4: weight (4, 3, 4, 4) and bias (4,)."""

    weight: Tensor
    bias: Tensor

    def __call__(self, pictures: Tensor) -> Tensor:
        """Latents (n, 4, 16, 16) of pictures (n, 3, 64, 64) in [-1, 1]."""
        return conv2d(pictures, self.weight, self.bias, stride=BLOCK)


def code(work: Path, art: Sprites) -> Code:
    """The code in `work/code.npz`, fitted first where it is missing."""
    path = work / "code.npz"
    if not path.exists():
        rng = Random("code")
        weight = _fitted(as_bytes([sample_scene(rng, "train") for _ in range(1500)], rng, art))
        np.savez(path, weight=weight[0], bias=weight[1])
    saved = np.load(path)
    return Code(torch.from_numpy(saved["weight"]), torch.from_numpy(saved["bias"]))


def as_bytes(scenes: list[Scene], rng: Random, art: Sprites) -> Tensor:
    """The scenes drawn, bytes (scenes, 3, 64, 64)."""
    pictures = np.stack([np.asarray(render(scene, rng, art)) for scene in scenes])
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).contiguous()


def to_float(pictures: Tensor) -> Tensor:
    """Bytes as floats in [-1, 1]."""
    return pictures.float() / 127.5 - 1


def _fitted(pictures: Tensor) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    weight = np.zeros((4, 3, BLOCK, BLOCK), dtype=np.float32)
    weight[:3] = OPPONENTS[:, :, None, None] / BLOCK**2
    floats = to_float(pictures)
    means = conv2d(floats, torch.from_numpy(weight[:3]), stride=BLOCK).numpy()
    weight[3] = _pattern(floats.mean(1).numpy(), means)[None] / 3
    features = conv2d(floats, torch.from_numpy(weight), stride=BLOCK)
    spread = features.std(dim=(0, 2, 3)).numpy()
    centre = features.mean(dim=(0, 2, 3)).numpy()
    return weight / spread[:, None, None, None], -centre / spread


def _pattern(brightness: NDArray[np.float32], means: NDArray[np.float32]) -> NDArray[np.float32]:
    """First principal component of the brightness that 3x3 neighbouring means do not predict."""
    number, side = len(means), means.shape[-1]
    padded = np.pad(means, ((0, 0), (0, 0), (1, 1), (1, 1)), mode="edge")
    near = [padded[:, :, y : y + side, x : x + side] for y in range(3) for x in range(3)]
    inputs = np.concatenate(near, axis=1).transpose(0, 2, 3, 1).reshape(-1, 27)
    inputs = np.concatenate([inputs, np.ones((len(inputs), 1), np.float32)], axis=1)
    blocks = brightness.reshape(number, side, BLOCK, side, BLOCK).transpose(0, 1, 3, 2, 4)
    targets = blocks.reshape(-1, BLOCK**2)
    rest = targets - inputs @ np.linalg.lstsq(inputs, targets, rcond=None)[0]
    rest -= rest.mean(1, keepdims=True)
    vectors = np.linalg.eigh(rest.T @ rest).eigenvectors
    first: NDArray[np.float32] = vectors[:, -1].reshape(BLOCK, BLOCK).astype(np.float32)
    return first * np.sign(first[0, 0])
