"""The reference of a preference loss: the policy before training."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch

from tastemaker.backbones import Backbone
from tastemaker.backbones.lora.adapters import acting, adapted, adapter_layers
from tastemaker.training.batches import NoisyBatch, residual


class Reference:
    """The policy's own networks with other adapters acting: no second model in memory.

    Args:
        backbone: The model, whose networks carry the LoRA that trains.
        adapter: The adapter that acts: `START`; None: none, the reference is the base.
    """

    def __init__(self, backbone: Backbone, adapter: str | None = None) -> None:
        self.backbone = backbone
        self.denoiser: torch.nn.Module = backbone.denoiser
        self.text_encoders: Sequence[torch.nn.Module] = backbone.text_encoders
        self.adapter = adapter
        self.layers = adapter_layers(adapted(backbone))

    @torch.no_grad()
    def residual(self, batch: NoisyBatch) -> torch.Tensor:
        """Return prediction minus target, shape [2 * pairs, channels, h, w], without graph."""
        # Not between a forward and its backward pass: that upsets compiled models.
        with acting(self.layers, self.adapter):
            return residual(self.backbone, self.denoiser, batch, self.text_encoders)


class FrozenCopy(Reference):
    """A copy of what trains, made before the first step: needed when all weights train.

    Args:
        backbone: The model as training starts.
        text_encoders: Those that train.
    """

    def __init__(self, backbone: Backbone, text_encoders: Sequence[torch.nn.Module] = ()) -> None:
        self.backbone = backbone
        self.denoiser, *self.text_encoders = (
            copy.deepcopy(network).requires_grad_(False).eval()
            for network in (backbone.denoiser, *text_encoders)
        )
        self.adapter, self.layers = None, []

    def release(self) -> None:
        """Free the copy's memory, once its errors are known."""
        for network in (self.denoiser, *self.text_encoders):
            network.to("meta")
