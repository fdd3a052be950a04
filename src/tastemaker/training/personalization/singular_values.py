"""SVDiff: the singular values of a network's weights train, its singular vectors stay."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.utils import parametrize


class SpectralShift(nn.Module):
    """`W + U diag(relu(s + delta) - s) V^T`, with `W = U diag(s) V^T`; exactly W at `delta = 0`.

    A convolution's weight is a matrix of one row per output channel.

    Args:
        weight: W, of two dimensions or more.

    References:
        Han et al. (SVDiff), arXiv 2303.11305, eqs. 3 and 4.
    """

    u: torch.Tensor
    s: torch.Tensor
    v: torch.Tensor

    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__()
        parts = torch.linalg.svd(weight.detach().float().flatten(1), full_matrices=False)
        for name, part in zip("usv", parts, strict=True):
            self.register_buffer(name, part.contiguous(), persistent=False)
        self.delta = nn.Parameter(torch.zeros_like(self.s))

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        """Return the shifted weight."""
        change = (self.u * (torch.relu(self.s + self.delta) - self.s)) @ self.v
        return weight + change.view_as(weight).to(weight.dtype)


def train_singular_values(network: nn.Module) -> None:
    """Make the shifts of all linear and convolution weights what trains of a frozen network.

    Biases and norms, which the paper shifts too as matrices of rank one, stay.

    Args:
        network: Changed in place.
    """
    for layer in list(network.modules()):
        if isinstance(layer, nn.Linear | nn.Conv2d):
            parametrize.register_parametrization(layer, "weight", SpectralShift(layer.weight))


def keep_singular_values(network: nn.Module) -> None:
    """Make the shifts part of the weights, so that the network has its own parameters again.

    Args:
        network: From `train_singular_values`, changed in place.
    """
    for layer in list(network.modules()):
        if parametrize.is_parametrized(layer, "weight"):
            parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)
