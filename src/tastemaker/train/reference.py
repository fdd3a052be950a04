"""Where the reference's predictions come from; every strategy gives the same numbers."""

from __future__ import annotations

import copy
from typing import Protocol

import torch

from tastemaker.backbones import Backbone, Conditioning
from tastemaker.train.adapters import START, adapters_off, only_adapter
from tastemaker.train.data import NoisyBatch


class Reference(Protocol):
    """The reference of a preference loss: the policy before training."""

    def residual(self, batch: NoisyBatch) -> torch.Tensor:
        """Return prediction minus target, shape [2 * pairs, channels, h, w], without graph."""
        ...


def residual(
    backbone: Backbone,
    denoiser: torch.nn.Module,
    batch: NoisyBatch,
    conditioning: Conditioning | None = None,
) -> torch.Tensor:
    """Prediction minus target of a denoiser, without guidance.

    Args:
        backbone: Knows how to call the denoiser.
        denoiser: Policy or reference.
        batch: Noisy images.
        conditioning: Prompt embeddings in place of the batch's, from a text encoder that trains.

    Returns:
        Float32, shape [images, channels, h, w].
    """
    prediction = backbone.predict(
        denoiser, batch.noisy_latents, batch.timesteps, conditioning or batch.conditioning
    )
    return prediction.float() - batch.target.float()


def mean_square(residual: torch.Tensor) -> torch.Tensor:
    """`error_i = mean(residual_i^2)` over a latent's elements, one value an image."""
    return residual.square().flatten(1).mean(1)


class Itself:
    """The policy's own denoiser, where only the text encoder trains."""

    def __init__(self, backbone: Backbone) -> None:
        self.backbone = backbone

    @torch.no_grad()
    def residual(self, batch: NoisyBatch) -> torch.Tensor:
        """Return the residuals of the denoiser, with the embeddings of before the training."""
        return residual(self.backbone, self.backbone.denoiser, batch)


class AdaptersOff:
    """The policy's own network with its adapters switched off: no second model in memory.

    Args:
        backbone: The backbone whose denoiser carries the LoRA.
    """

    def __init__(self, backbone: Backbone) -> None:
        self.backbone = backbone

    @torch.no_grad()
    def residual(self, batch: NoisyBatch) -> torch.Tensor:
        """Return the residuals of the network below the adapters."""
        with adapters_off(self.backbone.denoiser):
            return residual(self.backbone, self.backbone.denoiser, batch)


class FrozenAdapter:
    """The policy's own network with the adapter that it started from, which stays as it was.

    What a curriculum needs that carries one LoRA through its stages: with the adapters off, the
    network is the base and not the stage's start.

    Args:
        backbone: The backbone whose denoiser carries the LoRA and a frozen copy of it.
    """

    def __init__(self, backbone: Backbone) -> None:
        self.backbone = backbone

    @torch.no_grad()
    def residual(self, batch: NoisyBatch) -> torch.Tensor:
        """Return the residuals with the frozen adapter in place of the policy's."""
        with only_adapter(self.backbone.denoiser, START):
            return residual(self.backbone, self.backbone.denoiser, batch)


class FrozenCopy:
    """A copy of the denoiser, made before training: needed when all weights train.

    Args:
        backbone: The backbone, before any adapter is put on.
    """

    def __init__(self, backbone: Backbone) -> None:
        self.backbone = backbone
        self.denoiser = copy.deepcopy(backbone.denoiser).requires_grad_(False).eval()

    @torch.no_grad()
    def residual(self, batch: NoisyBatch) -> torch.Tensor:
        """Return the residuals of the copy."""
        return residual(self.backbone, self.denoiser, batch)
