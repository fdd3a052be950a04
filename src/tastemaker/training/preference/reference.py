"""Where the reference's predictions come from; every strategy gives the same numbers."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Sequence
from typing import Protocol

import torch

from tastemaker.backbones import Backbone
from tastemaker.backbones.lora.adapters import START, adapted, adapters_off, only_adapter
from tastemaker.training.preference.data import NoisyBatch


class Reference(Protocol):
    """The reference of a preference loss: the policy before training."""

    def residual(self, batch: NoisyBatch) -> torch.Tensor:
        """Return prediction minus target, shape [2 * pairs, channels, h, w], without graph."""
        ...


def residual(
    backbone: Backbone,
    denoiser: torch.nn.Module,
    batch: NoisyBatch,
    text_encoders: Sequence[torch.nn.Module] = (),
) -> torch.Tensor:
    """Prediction minus target of a denoiser, without guidance.

    Args:
        backbone: Knows how to call the denoiser.
        denoiser: Policy or reference.
        batch: Noisy images.
        text_encoders: They read the batch's tokens, where it has some, in place of the cache.

    Returns:
        Float32, shape [images, channels, h, w].
    """
    conditioning = batch.conditioning
    if batch.tokens is not None:
        conditioning = conditioning | backbone.embed(text_encoders, batch.tokens, conditioning)
    prediction = backbone.predict(denoiser, batch.noisy_latents, batch.timesteps, conditioning)
    return prediction.float() - batch.target.float()


def mean_square(residual: torch.Tensor) -> torch.Tensor:
    """`error_i = mean(residual_i^2)` over a latent's elements, one value an image."""
    return residual.square().flatten(1).mean(1)


class AdaptersOff:
    """The policy's own networks with their adapters switched off: no second model in memory.

    Args:
        backbone: The backbone whose denoiser, text encoders or both carry the LoRA.
    """

    def __init__(self, backbone: Backbone) -> None:
        self.backbone = backbone

    @torch.no_grad()
    def residual(self, batch: NoisyBatch) -> torch.Tensor:
        """Return the residuals of the networks below the adapters."""
        with contextlib.ExitStack() as stack:
            for network in adapted(self.backbone):
                stack.enter_context(adapters_off(network))
            return _own_residual(self.backbone, batch)


class FrozenAdapter:
    """The policy's own networks with the adapter that they started from, which stays as it was.

    What a curriculum needs that carries one LoRA through its stages: with the adapters off, the
    network is the base and not the stage's start.

    Args:
        backbone: The backbone whose networks carry the LoRA and a frozen copy of it.
    """

    def __init__(self, backbone: Backbone) -> None:
        self.backbone = backbone

    @torch.no_grad()
    def residual(self, batch: NoisyBatch) -> torch.Tensor:
        """Return the residuals with the frozen adapter in place of the policy's."""
        with contextlib.ExitStack() as stack:
            for network in adapted(self.backbone):
                stack.enter_context(only_adapter(network, START))
            return _own_residual(self.backbone, batch)


class FrozenCopy:
    """A copy of what trains, made before the first step: needed when all weights train.

    Args:
        backbone: The backbone as training starts.
        text_encoders: Those that train.
    """

    def __init__(self, backbone: Backbone, text_encoders: Sequence[torch.nn.Module] = ()) -> None:
        self.backbone = backbone
        self.denoiser, *self.text_encoders = (
            copy.deepcopy(network).requires_grad_(False).eval()
            for network in (backbone.denoiser, *text_encoders)
        )

    @torch.no_grad()
    def residual(self, batch: NoisyBatch) -> torch.Tensor:
        """Return the residuals of the copy."""
        return residual(self.backbone, self.denoiser, batch, self.text_encoders)


def _own_residual(backbone: Backbone, batch: NoisyBatch) -> torch.Tensor:
    return residual(backbone, backbone.denoiser, batch, backbone.text_encoders)
