"""Bind the configured losses with their weights, and build the credit scheme."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch

from tastemaker.backbones import Backbone
from tastemaker.config.training import TrainConfig
from tastemaker.core.errors import TastemakerError
from tastemaker.core.registry import CREDITS, LOSSES
from tastemaker.training.preference.credit import Credit

INPUTS = (
    *("errors", "margin", "chosen_error", "score_gap"),
    *("plain_errors", "chosen_shift", "mean_gain"),
)
"""Names of a loss's parameters, options aside."""


@dataclass(frozen=True)
class Term:
    """A loss with its options.

    Attributes:
        name: In the table of losses.
        weight: Factor in the sum.
        inputs: Names of its parameters, some of `INPUTS`.
        loss: The function.
    """

    name: str
    weight: float
    inputs: tuple[str, ...]
    loss: Callable[..., torch.Tensor]


def build_losses(config: TrainConfig) -> list[Term]:
    """Bind the configured losses.

    Args:
        config: `loss` counts once, `extra_losses` by their weights.

    Returns:
        One term per loss.

    Raises:
        TastemakerError: A loss takes something that a step does not have.
    """
    chosen = [(1.0, config.loss), *((term.weight, term) for term in config.extra_losses)]
    terms = []
    for weight, choice in chosen:
        parameters = inspect.signature(LOSSES.entry(choice.name)).parameters.values()
        inputs = tuple(each.name for each in parameters if each.kind is not each.KEYWORD_ONLY)
        other = [name for name in inputs if name not in INPUTS]
        if other or not inputs:
            raise TastemakerError(
                f"loss {choice.name!r} takes {', '.join(other) or 'no errors'}; name its parameters"
                f" from {', '.join(INPUTS)}, and put its options after `*`."
            )
        if "chosen_shift" in inputs and config.reference_draws:
            raise TastemakerError(
                f"loss {choice.name!r} needs the reference's whole prediction, of which"
                " reference_draws keeps the errors alone; leave reference_draws out."
            )
        terms.append(Term(choice.name, weight, inputs, LOSSES.bind(choice.name, choice.options)))
    return terms


def timestep_densities(
    config: TrainConfig, backbone: Backbone, credit: Credit, shapes: Iterable[Sequence[int]]
) -> list[torch.Tensor | None]:
    """Return how often timesteps are drawn per shape of latents: the family's times the scheme's.

    Args:
        config: Whether the family's density counts.
        backbone: The model.
        credit: The scheme.
        shapes: [channels, h, w] each.

    Returns:
        Densities, unnormalised, shape [T]; None for uniform.
    """
    own, densities = credit.density(), []
    for _, height, width in shapes:
        family = backbone.timestep_density(height, width)
        if family is None or config.timesteps == "uniform":
            densities.append(own)
        else:
            densities.append(family if own is None else family * own)
    return densities


def build_credit(config: TrainConfig, backbone: Backbone) -> Credit:
    """Build the configured credit scheme on a backbone's schedule.

    Raises:
        TastemakerError: The scheme does not fit the schedule.
    """
    scheme = CREDITS.bind(config.credit.name, config.credit.options)
    try:
        credit: Credit = scheme(backbone.noise_schedule)
    except ValueError as error:
        raise TastemakerError(
            f"train.credit={config.credit.name} on {backbone.name}: {error}."
        ) from None
    return credit
