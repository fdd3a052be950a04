"""Errors of estimates from votes: two votes are related by their prompt and by their voter."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tastemaker.metrics.clusters import MeanInterval, two_sided_95
from tastemaker.metrics.win_rate import WinRate

Array = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Error:
    """Variance of an estimate, and the degrees of freedom that it is known with."""

    variance: float
    degrees: int

    @property
    def reach(self) -> float:
        """Half the width of the 95% interval."""
        return two_sided_95(self.degrees) * math.sqrt(self.variance)


class TwoWay:
    """Covariance of sums over votes, robust to any correlation within a prompt and within a voter.

    `V = V_prompt + V_voter - V_both`, each `G / (G - 1) sum_g s_g s_g^T` over its G clusters, whose
    contributions sum to `s_g`; `V_both` is that of the votes of one voter on one prompt, which the
    other two have both counted. Degrees of freedom are Satterthwaite's,
    `V^2 / sum_k V_k^2 / (G_k - 1)`, and the fewer prompts or voters less 1 at least: many where
    prompts make the error, few where a few voters do.

    One voter alone says nothing of how others differ, nor does one prompt: then the other
    clustering counts by itself, and with neither each vote. As votes of a cluster do not repel one
    another, an error below that of independent votes is chance, and the latter is taken.

    Args:
        contributions: Of each vote to each sum, shape [votes, sums].
        prompts: Prompt of each vote.
        voters: Voter of each vote.

    References:
        Cameron, Gelbach and Miller (2011), Robust inference with multiway clustering; Satterthwaite
        (1946), An approximate distribution of estimates of variance components.
    """

    def __init__(
        self, contributions: Array, prompts: Sequence[Hashable], voters: Sequence[Hashable]
    ) -> None:
        first, second = codes(prompts), codes(voters)
        every = np.arange(len(contributions))
        one, two = first.max() > 0, second.max() > 0
        if one and two:
            both = codes(list(zip(first.tolist(), second.tolist(), strict=True)))
            parts = [(1.0, first), (1.0, second), (-1.0, both)]
        else:
            parts = [(1.0, first if one else second if two else every)]
        self._parts = [_covariance(contributions, groups, sign) for sign, groups in parts]
        self._independent = _covariance(contributions, every)

    def along(self, direction: Array, least: float = 0.0) -> Error:
        """Return the error of a weighted sum.

        Args:
            direction: Weight of each sum, shape [sums].
            least: Variance of independent votes where the caller knows it better than their sums
                of squares do.

        Returns:
            Variance and degrees of freedom.
        """
        parts = [(float(direction @ c @ direction), degrees) for c, degrees in self._parts]
        total = sum(variance for variance, _ in parts)
        blurred = sum(variance**2 / max(degrees, 1) for variance, degrees in parts)
        fewest = max(1, min(degrees for _, degrees in parts))
        known = max(fewest, int(total**2 / blurred)) if blurred else fewest
        robust = Error(max(total, 0.0), known)
        covariance, degrees = self._independent
        single = max(float(direction @ covariance @ direction), least)
        return max(robust, Error(single, max(degrees, 1)), key=lambda error: error.reach)


def codes(labels: Sequence[Hashable]) -> Codes:
    """Number labels from 0 in the order in which they first appear.

    Example:
        >>> codes(["b", "a", "b"]).tolist()
        [0, 1, 0]
    """
    numbers: dict[Hashable, int] = {}
    found = [numbers.setdefault(label, len(numbers)) for label in labels]
    return np.array(found, dtype=np.int64)


def mean_of_votes(
    values: Sequence[float], prompts: Sequence[Hashable], voters: Sequence[Hashable]
) -> MeanInterval:
    """Mean over votes with a 95% interval clustered by prompt and by voter.

    Args:
        values: One per vote, one or more.
        prompts: Prompt of each vote.
        voters: Voter of each vote.

    Returns:
        Mean, standard error and both ends; a single vote has no error, and NaN for it.

    Example:
        >>> mean_of_votes([1.0, 3.0], ["a", "b"], ["ann", "ann"])[:2]
        (2.0, 1.0)
    """
    x = np.asarray(values, dtype=np.float64)
    mean = float(x.mean())
    if len(x) == 1:
        return MeanInterval(mean, math.nan, math.nan, math.nan)
    error = TwoWay(((x - mean) / len(x))[:, None], prompts, voters).along(np.ones(1))
    return MeanInterval(mean, math.sqrt(error.variance), mean - error.reach, mean + error.reach)


def share_of_votes(
    points: Sequence[float], prompts: Sequence[Hashable], voters: Sequence[Hashable]
) -> WinRate:
    """Share of points won over votes, with Wilson's interval at the effective number of votes.

    As `win_rate`, with the error clustered by prompt and by voter. Where all points are equal
    nothing shows how clusters differ, and each prompt, or voter where these are fewer and more than
    one, counts as one vote.

    Args:
        points: 1, 0.5 or 0 per vote; one or more.
        prompts: Prompt of each vote.
        voters: Voter of each vote.

    Returns:
        The share and its interval, from 0 to 1 for a single vote.

    Example:
        >>> share_of_votes([1.0, 1.0, 0.0, 1.0], ["a", "b", "c", "d"], ["ann"] * 4).value
        0.75
    """
    x = np.asarray(points, dtype=np.float64)
    w = float(x.mean())
    if len(x) == 1:
        return WinRate(w, 0.0, 1.0)
    if np.ptp(x) == 0:
        counts = [len(set(labels)) for labels in (prompts, voters)]
        m = float(min((n for n in counts if n > 1), default=len(x)))
        t = two_sided_95(int(m) - 1)
    else:
        error = TwoWay(((x - w) / len(x))[:, None], prompts, voters).along(np.ones(1))
        m, t = w * (1 - w) / error.variance, two_sided_95(error.degrees)
    centre = (w + t**2 / (2 * m)) / (1 + t**2 / m)
    half = t * math.sqrt(w * (1 - w) / m + t**2 / (4 * m * m)) / (1 + t**2 / m)
    return WinRate(w, max(0.0, centre - half), min(1.0, centre + half))


def _covariance(contributions: Array, groups: Codes, sign: float = 1.0) -> tuple[Array, int]:
    """Return `sign G / (G - 1) sum_g s_g s_g^T`, and G - 1."""
    number = int(groups.max()) + 1
    sums: Array = np.zeros((number, contributions.shape[1]))
    np.add.at(sums, groups, contributions)
    return sign * number / max(number - 1, 1) * (sums.T @ sums), number - 1
