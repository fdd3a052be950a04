"""A loaded network as its device computes it fastest."""

from __future__ import annotations

import pytest
import torch

from stable_diffusion import unet
from tastemaker.backbones.loading import lay_out


@pytest.mark.parametrize(
    ("device", "dtype", "strides"),
    [
        ("cuda", torch.bfloat16, (36, 1, 12, 4)),
        ("cuda", torch.float16, (36, 1, 12, 4)),
        ("cuda", torch.float32, (36, 9, 3, 1)),
        ("cpu", torch.bfloat16, (36, 9, 3, 1)),
    ],
)
def test_convolutions_are_channels_last_on_cuda_in_half_precision(
    device: str, dtype: torch.dtype, strides: tuple[int, ...]
) -> None:
    """A kernel of 3 x 3 over 4 channels: of neighbours in memory, those of one pixel or row."""
    network = unet().to(dtype)
    lay_out(network, device)
    assert network.conv_in.weight.stride() == strides
