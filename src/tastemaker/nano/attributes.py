"""Networks that name what a picture of `nano` shows: objects, numbers, places, colours, style.

Two of different bodies, learned apart, so that what fools one need not fool the other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from tastemaker.nano import CHECKER, EXAMINER
from tastemaker.nano.captions import BACKGROUNDS, CONCEPTS, SIZES, STYLES

SIDE = 64
HIGHEST = 3
GLOBAL = (len(SIZES), len(BACKGROUNDS), len(STYLES))
# Centre of a lone object, as shares of half a side, in the order of `POSITIONS`.
CENTRES = ((-0.47, 0.0), (0.47, 0.0), (0.0, -0.47), (0.0, 0.47), (0.0, 0.0))


@dataclass(frozen=True, slots=True)
class Attributes:
    """Logits of what pictures show.

    Attributes:
        counts: Objects of each concept, 0 to 3, [pictures, 40, 4].
        places: Place of each concept's only object, in the order of `POSITIONS`, [pictures, 40, 5].
        sizes: Of a lone object, in the order of `SIZES`, [pictures, 2].
        backgrounds: In the order of `BACKGROUNDS`, [pictures, 8].
        styles: In the order of `STYLES`, [pictures, 2].
    """

    counts: Tensor
    places: Tensor
    sizes: Tensor
    backgrounds: Tensor
    styles: Tensor


class _Network(nn.Module):
    """One 8x8 map per concept on top of a body; its number and its place are read from the map.

    By weights that all concepts share: what is learned of one in three places holds for all.
    """

    def __init__(self, body: nn.Sequential, width: int) -> None:
        super().__init__()
        self.body = body
        self.maps = nn.Conv2d(width, len(CONCEPTS), 1)
        self.counter = nn.Sequential(nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, HIGHEST + 1))
        self.centres = nn.Parameter(torch.tensor(CENTRES))
        self.sharpness = nn.Parameter(torch.tensor(3.0))
        self.whole = nn.Linear(2 * width, sum(GLOBAL))
        self.maps.bias = nn.Parameter(torch.full((len(CONCEPTS),), -4.0))  # most are absent

    def forward(self, pixels: Tensor) -> Attributes:
        """Name what pictures show, [pictures, 3, 64, 64] in [-1, 1]."""
        cells = self.body(pixels)
        evidence = self.maps(cells).flatten(2)
        grid = torch.linspace(-0.875, 0.875, 8, device=pixels.device, dtype=evidence.dtype)
        points = torch.cartesian_prod(grid, grid).flip(1)
        centroid = evidence.softmax(-1) @ points
        distance = (centroid[:, :, None] - self.centres).square().sum(-1)
        pooled = torch.cat([cells.mean((2, 3)), cells.amax((2, 3))], 1)
        return Attributes(
            self.counter(evidence.sigmoid()),
            -self.sharpness.exp() * distance,
            *self.whole(pooled).split(GLOBAL, 1),
        )


class Checker(_Network):
    """Strided convolutions with batch norm."""

    def __init__(self) -> None:
        widths = [(3, 32, 2), (32, 64, 2), (64, 64, 1), (64, 128, 2), (128, 128, 1)]
        super().__init__(nn.Sequential(*(_normed(*width) for width in widths)), 128)


class Examiner(_Network):
    """Residual blocks with group norm and SiLU."""

    def __init__(self) -> None:
        body = nn.Sequential(
            nn.Conv2d(3, 24, 3, 2, 1),
            nn.SiLU(),
            nn.Conv2d(24, 48, 3, 2, 1),
            _Residual(48),
            nn.Conv2d(48, 96, 3, 2, 1),
            _Residual(96),
            _Residual(96),
            nn.GroupNorm(8, 96),
            nn.SiLU(),
        )
        super().__init__(body, 96)


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(
            nn.GroupNorm(8, width),
            nn.SiLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.GroupNorm(8, width),
            nn.SiLU(),
            nn.Conv2d(width, width, 3, padding=1),
        )

    def forward(self, cells: Tensor) -> Tensor:
        changed: Tensor = cells + self.inner(cells)
        return changed


def _normed(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU())


NETWORKS: dict[str, tuple[Callable[[], nn.Module], Path]] = {
    "checker": (Checker, CHECKER),
    "examiner": (Examiner, EXAMINER),
}
"""Network and file of its shipped weights, by name."""


def shipped(name: str) -> nn.Module:
    """Return a shipped network in float32, for inference.

    Args:
        name: Key of `NETWORKS`.
    """
    make, file = NETWORKS[name]
    network = make()
    network.load_state_dict(load_file(file))
    return network.float().eval().requires_grad_(False)
