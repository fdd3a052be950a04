"""Denoiser conditioning beside latents and timestep: prompt embeddings, one row per prompt."""

from __future__ import annotations

from collections.abc import Sequence

import torch

Conditioning = dict[str, torch.Tensor]
"""Prompt embeddings under the names of the pipeline's arguments, first dimension = prompts."""

IMAGE_EMBEDS = "image_embeds"
"""Name of an IP-Adapter's image embeddings among those of prompts; [prompts, 1, ...]."""


def select(conditioning: Conditioning, rows: torch.Tensor | Sequence[int]) -> Conditioning:
    """Pick rows of a conditioning.

    Args:
        conditioning: Embeddings, first dimension = prompts.
        rows: Indices, repetition allowed.

    Returns:
        The rows, in the order given.
    """
    index = torch.as_tensor(rows, dtype=torch.long)
    return {name: value[index.to(value.device)] for name, value in conditioning.items()}


def stack(conditionings: Sequence[Conditioning]) -> Conditioning:
    """Join conditionings along their first dimension."""
    first = conditionings[0]
    return {name: torch.cat([item[name] for item in conditionings]) for name in first}
