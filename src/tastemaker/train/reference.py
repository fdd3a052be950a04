"""Where the reference's errors come from; every strategy gives the same numbers."""

from __future__ import annotations

import copy
from typing import Protocol

import torch

from tastemaker.backbones import Backbone
from tastemaker.train.adapters import adapters_off
from tastemaker.train.data import NoisyBatch


class Reference(Protocol):
    """The reference of a preference loss: the policy before training."""

    def errors(self, batch: NoisyBatch) -> torch.Tensor:
        """Return mean squared errors, shape [2 * pairs], without graph."""
        ...


def residuals(backbone: Backbone, denoiser: torch.nn.Module, batch: NoisyBatch) -> torch.Tensor:
    """Prediction minus target, float32, shape [2 * pairs, channels, h, w]."""
    prediction = backbone.predict(
        denoiser, batch.noisy_latents, batch.timesteps, batch.conditioning
    )
    return prediction.float() - batch.target.float()


def mean_square(residual: torch.Tensor) -> torch.Tensor:
    """`error_i = mean(residual_i^2)` over a latent's elements, one value an image."""
    return residual.square().flatten(1).mean(1)


def denoising_errors(
    backbone: Backbone, denoiser: torch.nn.Module, batch: NoisyBatch
) -> torch.Tensor:
    """Squared error of the prediction, averaged over a latent's elements.

    `error_i = mean((target_i - prediction_i)^2)`, one value an image, in float32.

    Args:
        backbone: Knows how to call the denoiser.
        denoiser: Policy or reference.
        batch: Chosen images first, then rejected.

    Returns:
        Errors, shape [2 * pairs].
    """
    return mean_square(residuals(backbone, denoiser, batch))


class AdaptersOff:
    """The policy's own network with its adapters switched off: no second model in memory.

    Args:
        backbone: The backbone whose denoiser carries the LoRA.
    """

    def __init__(self, backbone: Backbone) -> None:
        self.backbone = backbone

    @torch.no_grad()
    def errors(self, batch: NoisyBatch) -> torch.Tensor:
        """Return the errors of the network below the adapters."""
        with adapters_off(self.backbone.denoiser):
            return denoising_errors(self.backbone, self.backbone.denoiser, batch)


class FrozenCopy:
    """A copy of the denoiser, made before training: needed when all weights train.

    Args:
        backbone: The backbone, before any adapter is put on.
    """

    def __init__(self, backbone: Backbone) -> None:
        self.backbone = backbone
        self.denoiser = copy.deepcopy(backbone.denoiser).requires_grad_(False).eval()

    @torch.no_grad()
    def errors(self, batch: NoisyBatch) -> torch.Tensor:
        """Return the errors of the copy."""
        return denoising_errors(self.backbone, self.denoiser, batch)
