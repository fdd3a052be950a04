"""The autoencoder in float16: what overflows is named, what says that it would stays in float32."""

from __future__ import annotations

import pytest
import torch

from stable_diffusion import autoencoder
from tastemaker.backbones.autoencoder import Autoencoder
from tastemaker.core.errors import TastemakerError


def test_overflow_in_float16_is_named() -> None:
    network = autoencoder(force_upcast=False).half()
    vae = Autoencoder("some/model", network)
    network.post_quant_conv.weight.data.fill_(6e4)
    with pytest.raises(TastemakerError, match=r"some/model overflows in fp16: its pixels.*bf16"):
        vae.decode(torch.ones(1, network.config.latent_channels, 8, 8))
    network.quant_conv.weight.data.fill_(6e4)
    with pytest.raises(TastemakerError, match=r"overflows in fp16: its latents"):
        vae.encode(torch.ones(1, 3, 16, 16))


def test_a_vae_that_says_that_it_overflows_stays_in_float32() -> None:
    network = autoencoder(force_upcast=True).half()
    vae = Autoencoder("some/model", network)
    assert network.dtype == torch.float32
    latents = torch.ones(1, network.config.latent_channels, 8, 8, dtype=torch.float16)
    assert torch.isfinite(vae.decode(latents)).all()
