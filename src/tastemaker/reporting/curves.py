"""Training curves of the page, with the meaning of each metric."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from tastemaker.reporting import figures

Colours = dict[str, str]


@dataclass(frozen=True)
class CurveGroup:
    """Metrics drawn in one figure.

    Args:
        title: Heading.
        meaning: How to read it.
        lines: Colour of each metric.
        level: Value of a dashed line, if any.
        smooth: Draw a moving average over the raw values.
    """

    title: str
    meaning: str
    lines: Colours
    level: float | None = None
    smooth: bool = True


@dataclass(frozen=True)
class Curves:
    """A drawn group."""

    group: CurveGroup
    lines: Colours
    svg: Markup


LN2 = CurveGroup(
    "Loss",
    "Dashed: ln 2, the loss of a policy equal to the reference. Below it, the policy"
    " prefers the chosen images. Single steps are noisy, since each draws other timesteps.",
    {"loss": "policy"},
    level=math.log(2),
)

REWARD = CurveGroup(
    "Reward",
    "Mean score, by the training scorer, of the images drawn at each step. It rises by design:"
    " whether the images got better, the other scorers say.",
    {"reward": "policy"},
)

GROUPS = (
    CurveGroup(
        "Accuracy",
        "Share of pairs whose chosen image has the higher implicit reward. Dashed: a coin flip.",
        {"rewards/accuracies": "policy"},
        level=0.5,
    ),
    CurveGroup(
        "Margin",
        "Implicit reward of chosen minus rejected. It should rise; a steep rise says that the"
        " policy is leaving the reference fast.",
        {"rewards/margins": "policy"},
        level=0.0,
    ),
    CurveGroup(
        "Implicit rewards",
        "How much likelier the policy makes each image than the reference does, scaled by beta."
        " Healthy when chosen stays at or above zero.",
        {"rewards/chosen": "chosen", "rewards/rejected": "rejected"},
        level=0.0,
    ),
    CurveGroup(
        "Denoising errors",
        "Policy error minus reference error. Below zero the policy denoises better than the"
        " reference. If chosen rises above zero, images are getting worse while the margin grows.",
        {"errors/chosen": "chosen", "errors/rejected": "rejected"},
        level=0.0,
    ),
    CurveGroup(
        "Gradient norm",
        "Before clipping. Spikes that grow call for a lower learning rate or a longer warm-up.",
        {"grad_norm": "policy"},
    ),
    CurveGroup(
        "Learning rate",
        "Of the optimizer at each step.",
        {"learning_rate": "policy"},
        smooth=False,
    ),
)


def draw(metrics: Sequence[Mapping[str, float]], loss: str | None) -> list[Curves]:
    """Draw the metrics of a training, a figure per group.

    Args:
        metrics: Rows of `metrics.jsonl`, in order of steps.
        loss: Name of the loss, or None where unknown.

    Returns:
        The drawn groups; those without a finite value are left out.
    """
    if not metrics:
        return []
    steps = np.array([row["step"] for row in metrics])
    curves = []
    for group in (_goal(metrics, loss), *GROUPS):
        series = {key: np.array([row.get(key, math.nan) for row in metrics]) for key in group.lines}
        series = {key: values for key, values in series.items() if np.isfinite(values).any()}
        if series:
            svg = figures.curve(group.title, steps, series, group.lines, group.level, group.smooth)
            curves.append(Curves(group, {key: group.lines[key] for key in series}, svg))
    return curves


def _goal(metrics: Sequence[Mapping[str, float]], loss: str | None) -> CurveGroup:
    """Return the group of the loss, or of the reward."""
    if any("reward" in row for row in metrics):
        return REWARD
    # Only a logistic loss is ln 2 at margin zero; on others the line would mislead.
    if loss in {"dpo", None}:
        return LN2
    return CurveGroup("Loss", "Falls as chosen and rejected images are distinguished.", LN2.lines)
