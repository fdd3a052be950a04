"""Stacks of linear layers that turn an embedding into one number, as published."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping

from tastemaker.core.errors import TastemakerError
from tastemaker.core.lazy_torch import torch


def linear_head(weights: Mapping[str, torch.Tensor], source: str) -> torch.nn.Sequential:
    """Make a head of its weights: linear layers one after the other, without activations.

    The published heads were trained with dropout between the layers and nothing else, so that
    each is one linear map; the layers are kept as they are.

    Args:
        weights: `layers.N.weight` and `layers.N.bias` in the order of N, or `weight` and `bias`.
        source: Their origin, for the message.

    Returns:
        The head in float32, not trainable; its last layer gives one number.

    Raises:
        TastemakerError: The weights are not those of such a head.
    """
    found = [re.fullmatch(r"(?:layers\.(\d+)\.)?weight", key) for key in weights]
    keys = sorted((key for key in found if key), key=lambda key: int(key[1] or 0))
    layers = []
    for key in keys:
        weight, bias = weights[key[0]], weights.get(key[0].removesuffix("weight") + "bias")
        if weight.ndim == 2 and bias is not None and bias.shape == weight.shape[:1]:
            layer = torch.nn.Linear(weight.shape[1], weight.shape[0])
            layer.load_state_dict({"weight": weight.float(), "bias": bias.float()})
            layers.append(layer)
    fits = all(one.out_features == two.in_features for one, two in itertools.pairwise(layers))
    if not layers or 2 * len(layers) != len(weights) or not fits or layers[-1].out_features != 1:
        raise TastemakerError(
            f"weights of {source!r} are not a stack of linear layers from an embedding to one"
            " number;"
            f" they are {sorted(weights)[:4]}."
        )
    return torch.nn.Sequential(*layers).eval().requires_grad_(False)
