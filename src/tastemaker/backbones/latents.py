"""Latents of a pool's images."""

from __future__ import annotations

import contextlib
import functools
from typing import TYPE_CHECKING, Any

import torch

from tastemaker.backbones.parts import latent_units
from tastemaker.backbones.places import resolve, root_of
from tastemaker.core.errors import TastemakerError
from tastemaker.storage.candidates import latents_of
from tastemaker.storage.images import decode, to_pixels

if TYPE_CHECKING:
    from tastemaker.backbones.base import Backbone


def encode_row(backbone: Backbone, row: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a candidate's latents: its own if the pool keeps them, else encoded by the VAE.

    Latents of a model with another VAE are other numbers of the same shape: they are ignored.

    Args:
        backbone: The model.
        row: Row of a pool, with `image` and perhaps `latents` of the row's `model`.

    Returns:
        Mean and standard deviation, float32 on the CPU, [channels, h, w]; the deviation of kept
        latents is 0.

    Raises:
        TastemakerError: The image is corrupt, or of a size that the family cannot take.
    """
    if (own := kept_latents(backbone, row)) is not None:
        return own, torch.zeros_like(own)
    pixels = to_pixels([decode(row["image"]["bytes"], row["candidate_id"])])
    backbone.latent_shape(*pixels.shape[-2:])
    mean, std = backbone.vae.encode(pixels)
    return mean[0].float().cpu(), std[0].float().cpu()


def kept_latents(backbone: Backbone, row: dict[str, Any]) -> torch.Tensor | None:
    """Return the latents that a pool keeps of a candidate.

    Args:
        backbone: The model.
        row: Row of a pool.

    Returns:
        Float32, [channels, h, w]; None where it keeps none that this model understands.
    """
    own = latents_of(row)
    return own if own is not None and _same_latents(backbone.name, row["model"]) else None


@functools.lru_cache(maxsize=64)  # asked for every image of a pool
def _same_latents(name: str, other: str) -> bool:
    """Compare two models' VAEs; a model that is missing by now counts as the same."""
    roots = [resolve(root_of(each)) for each in (name, other)]
    if roots[0] == roots[1]:
        return True
    with contextlib.suppress(TastemakerError):
        return latent_units(roots[0]) == latent_units(roots[1])
    return True
