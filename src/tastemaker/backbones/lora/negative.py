"""Negative-preference LoRA: one that acts in the unconditional branch of guidance alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.utils._pytree import tree_map

from tastemaker.backbones.lora.layers import read_layers
from tastemaker.backbones.lora.weights import attach_lora
from tastemaker.backbones.places import LORA_FILE, root_of
from tastemaker.backbones.textual_inversion import refuse_token
from tastemaker.core.errors import TastemakerError

if TYPE_CHECKING:
    from tastemaker.backbones.base import Backbone

NEGATIVE = "negative"
"""Name of the LoRA on the denoiser."""


def add_negative(backbone: Backbone, folder: Path) -> None:
    """Let a LoRA act in the unconditional half of the denoiser's guided batches, beside the others.

    `prediction = negative + guidance_scale * (policy - negative)`, where `negative` is the policy
    with this LoRA on top: trained on pairs whose sides are exchanged, it knows what to leave.
    A LoRA that changes nothing leaves guidance as it is.

    Args:
        backbone: The model, with its LoRA on or added to the weights; from now on its denoiser
            takes guided batches alone.
        folder: Folder of the LoRA, of the same base.

    Raises:
        TastemakerError: The family has no unconditional branch, or the LoRA is of another base or
            adapts more than the denoiser.

    References:
        Wang et al. (Diffusion-NPO), arXiv 2505.11245, with both offsets at full weight.
    """
    _check(backbone, folder)
    before = {layer: list(layer.active_adapters) for layer in _layers(backbone)}
    attach_lora(backbone, folder, NEGATIVE)
    layers = [
        (layer, before.get(layer, []), [NEGATIVE] if NEGATIVE in layer.lora_A else [])
        for layer in _layers(backbone)
    ]

    def forward(*arguments: Any, **options: Any) -> tuple[torch.Tensor, ...]:
        given: Any = (arguments, options)
        rows = len(arguments[0] if arguments else options["hidden_states"])
        halves = []
        for half, acts in enumerate((True, False)):
            for layer, own, negative in layers:
                layer.set_adapter([*own, *(negative if acts else ())])
            own_arguments, own_options = tree_map(lambda each, i=half: _half(each, rows, i), given)
            halves.append(plain(*own_arguments, **own_options))
        return tuple(map(torch.cat, zip(*halves, strict=True)))

    plain = backbone.denoiser.forward
    backbone.denoiser.forward = forward


def _check(backbone: Backbone, folder: Path) -> None:
    if not backbone.takes_negative:
        raise TastemakerError(
            f"adapter.negative: {backbone.name} takes guidance as an input and has no unconditional"
            " branch; leave it out."
        )
    refuse_token(folder)
    base, own = root_of(str(folder)), root_of(backbone.name)
    if base != own:
        raise TastemakerError(f"adapter.negative: {folder} is a LoRA of {base}, not of {own}.")
    parts = {module.partition(".")[0] for module in read_layers(folder / LORA_FILE)}
    if others := sorted(parts - {backbone.part}):
        raise TastemakerError(
            f"adapter.negative: {folder} adapts {others[0]} too; train one without text_lora."
        )


def _layers(backbone: Backbone) -> Sequence[Any]:
    from peft.tuners.lora import LoraLayer

    return [each for each in backbone.denoiser.modules() if isinstance(each, LoraLayer)]


def _half(value: Any, rows: int, half: int) -> Any:
    """One half of a tensor with a row per latent; other values as they are."""
    batched = isinstance(value, torch.Tensor) and value.dim() and len(value) == rows
    return value.chunk(2)[half] if batched else value
