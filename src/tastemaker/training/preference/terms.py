"""From the configuration to what a step uses: bound losses with their weights, a credit scheme."""

from __future__ import annotations

import inspect
from collections.abc import Callable

import torch

from tastemaker.backbones import Backbone
from tastemaker.config.training import TrainConfig
from tastemaker.core.errors import TastemakerError
from tastemaker.core.registry import CREDITS, LOSSES
from tastemaker.training.preference.credit import Credit

Term = tuple[float, str, Callable[[torch.Tensor], torch.Tensor]]
"""Weight, what the loss looks at ("margin" or "chosen_error"), and the loss with its options."""


def weighted_losses(config: TrainConfig) -> list[Term]:
    """Bind the configured losses.

    Args:
        config: `loss` counts once, `extra_losses` by their weights.

    Returns:
        One term a loss.

    Raises:
        TastemakerError: A loss looks at something that no step has.
    """
    chosen = [(1.0, config.loss), *((term.weight, term) for term in config.extra_losses)]
    terms = []
    for weight, choice in chosen:
        looks_at = next(iter(inspect.signature(LOSSES.entry(choice.name)).parameters))
        if looks_at not in {"margin", "chosen_error"}:
            raise TastemakerError(
                f"loss {choice.name!r}: its first parameter is {looks_at!r}; name it margin or"
                " chosen_error, after what it looks at."
            )
        terms.append((weight, looks_at, LOSSES.bind(choice.name, choice.options)))
    return terms


def build_credit(config: TrainConfig, backbone: Backbone) -> Credit:
    """Build the configured credit scheme on a backbone's schedule.

    Raises:
        TastemakerError: The scheme does not fit the schedule.
    """
    try:
        credit: Credit = CREDITS.bind(config.credit.name, config.credit.options)(
            backbone.noise_schedule
        )
    except ValueError as error:
        raise TastemakerError(
            f"train.credit={config.credit.name} on {backbone.name}: {error}."
        ) from None
    return credit
