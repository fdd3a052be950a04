"""Diversity: how far apart the images lie that a model draws for one prompt."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence

from torch import Tensor
from torch.nn.functional import normalize

from tastemaker.core.errors import TastemakerError


def pairwise_distances(features: Tensor, prompts: Sequence[Hashable]) -> list[float]:
    """Mean cosine distance between the images of each prompt.

    `d_p = mean_{i < j} (1 - cos(f_i, f_j))` over the images of prompt p. A policy that obtains its
    score by drawing one image per prompt again and again has less of it than its base: the mode
    collapse of preference training. It does not see whether the images are any good.

    Args:
        features: One row per image, [n, d].
        prompts: The prompt of each image, two images or more of each.

    Returns:
        A distance in [0, 2] per prompt, in the order in which the prompts first appear.

    Raises:
        TastemakerError: A prompt has one image alone.

    Example:
        >>> import torch
        >>> pairwise_distances(torch.tensor([[1.0, 0.0], [0.0, 2.0]]), ["a cat", "a cat"])
        [1.0]
    """
    rows: dict[Hashable, list[int]] = defaultdict(list)
    for row, prompt in enumerate(prompts):
        rows[prompt].append(row)
    if min(map(len, rows.values())) < 2:
        raise TastemakerError("diversity needs two images or more of each prompt.")
    unit = normalize(features.double(), dim=1)
    return [_mean_distance(unit[own]) for own in rows.values()]


def _mean_distance(unit: Tensor) -> float:
    """Mean cosine distance between rows of length 1."""
    cosines, number = unit @ unit.T, len(unit)
    return 1 - float(cosines.sum() - cosines.trace()) / (number * (number - 1))
