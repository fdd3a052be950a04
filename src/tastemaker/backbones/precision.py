"""Layers in fp32 inside a network of lower precision."""

from __future__ import annotations

from typing import Any

import torch


def keep_in_fp32(layer: torch.nn.Module) -> None:
    """Keep a layer of one input in fp32, weights and computation, under autocast too.

    For the last layer of a denoiser: preference losses compare errors that differ in their fourth
    digit, and multiply what is left by thousands; bf16 keeps three digits. Under autocast the
    result stays in fp32, elsewhere it has the input's type.

    Args:
        layer: Changed in place; a copy of the network keeps what this does.
    """
    kind = type(layer)
    if issubclass(kind, _InFP32):
        return
    layer.__class__ = type(f"{kind.__name__}InFP32", (_InFP32, kind), {})
    layer.float()


class _InFP32:
    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        device = inputs.device.type
        layer: Any = super()
        outputs: torch.Tensor
        # `meta` has no autocast.
        if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
            with torch.autocast(device, enabled=False):
                outputs = layer.forward(inputs.float())
            return outputs
        outputs = layer.forward(inputs.float())
        return outputs.to(inputs.dtype)
