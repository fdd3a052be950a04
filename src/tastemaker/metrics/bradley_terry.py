"""Bradley-Terry strengths of what people compared two at a time."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tastemaker.metrics.clusters import MeanInterval, two_sided_p
from tastemaker.metrics.two_way import TwoWay, share_of_votes
from tastemaker.metrics.win_rate import WinRate

Array = npt.NDArray[np.float64]

RIDGE = 0.25
"""A normal prior of standard deviation 2 on each strength, in log-odds."""

LONGEST_STEP = 2.0
STEPS = 200


class Comparison(NamedTuple):
    """One comparison of two.

    Args:
        first: One of them.
        second: The other.
        score: 1 where the first was preferred, 0 where the second was, 0.5 for a tie.
        prompt: Prompt, or whatever else makes comparisons alike.
        voter: Voter.
    """

    first: str
    second: str
    score: float
    prompt: Hashable
    voter: Hashable


class Difference(NamedTuple):
    """A difference of two strengths: standard error, 95% interval, and p value of none."""

    value: float
    stderr: float
    low: float
    high: float
    p: float


@dataclass(frozen=True)
class BradleyTerry:
    """Strengths from comparisons: `P(i beats j) = 1 / (1 + exp(-(theta_i - theta_j)))`.

    A tie is half a win of each, so that `1 / (1 + exp(-difference))` is a win rate with ties
    counted half; of two alone it is the one observed, but for the ridge. (Davidson's model gives
    ties a parameter of their own; its strengths are those of decided comparisons, from which the
    win rates of other tables do not follow.) Both bad is a tie: neither was preferred. A skipped
    comparison is none.

    Maximised is the log-likelihood less `RIDGE / 2 * sum_i theta_i^2`, so that one that never lost,
    or was never compared, has a finite strength; hundreds of comparisons outweigh it. The mean
    strength is 0. Covariances are `H^-1 B H^-1`: H the Hessian, B the two-way clustered covariance
    of the scores (`TwoWay`), and never below that of independent comparisons by the model, `H^-1`
    less what ties take from the variance of a score, which alone shows how little is known of one
    that never lost.

    Choice of the next comparison by the votes so far biases no strength where the model holds: the
    likelihood does not depend on the choice. It does bias shares over comparisons.

    Args:
        names: All that have a strength, two or more.
        comparisons: One or more, each of two different names.

    Example:
        >>> votes = [Comparison("a", "b", 1.0, prompt, "ann") for prompt in range(30)]
        >>> votes += [Comparison("a", "b", 0.0, prompt, "bob") for prompt in range(10)]
        >>> fit = BradleyTerry(("a", "b"), tuple(votes))
        >>> round(fit.difference("a", "b").value, 2), round(math.log(3), 2)
        (1.08, 1.1)

    References:
        Bradley and Terry (1952), Rank analysis of incomplete block designs; Davidson (1970), On
        extending the Bradley-Terry model to accommodate ties.
    """

    names: tuple[str, ...]
    comparisons: tuple[Comparison, ...]

    def __post_init__(self) -> None:
        """Refuse what cannot be fitted."""
        if len(self.names) < 2 or not self.comparisons:
            raise ValueError("strengths need two names or more and one comparison or more")
        if any(each.first == each.second for each in self.comparisons):
            raise ValueError("a comparison of a name with itself says nothing")

    @cached_property
    def wins(self) -> Array:
        """Wins of each (row) over each (column), ties counted half, shape [names, names]."""
        first, second = self._sides
        scores = np.array([each.score for each in self.comparisons])
        wins = np.zeros((len(self.names), len(self.names)))
        np.add.at(wins, (first, second), scores)
        np.add.at(wins, (second, first), 1 - scores)
        return wins

    @cached_property
    def strengths(self) -> Array:
        """Strengths in log-odds, mean 0, shape [names]."""
        return strengths(self.wins)

    def strength(self, name: str) -> MeanInterval:
        """Return a strength against the mean of all, with standard error and 95% interval."""
        i = self.names.index(name)
        weights = -np.ones(len(self.names)) / len(self.names)
        weights[i] += 1
        value, stderr, low, high, _ = self._along(weights)
        return MeanInterval(value, stderr, low, high)

    def difference(self, name: str, other: str) -> Difference:
        """Return by how much one is stronger than another; p by Student's t, two-sided."""
        weights = np.zeros(len(self.names))
        weights[self.names.index(name)] += 1
        weights[self.names.index(other)] -= 1
        return self._along(weights)

    def win_rates(self) -> dict[str, dict[str, WinRate | None]]:
        """Return the share of comparisons that each (first key) won against each other.

        Counted, not of the model: ties half, with an interval clustered by prompt and voter; None
        where two were never compared.
        """
        rates: dict[str, dict[str, WinRate | None]] = {name: {} for name in self.names}
        for i, name in enumerate(self.names):
            for other in self.names[i + 1 :]:
                rate = self._rate(name, other)
                rates[name][other] = rate
                rates[other][name] = rate and WinRate(1 - rate.value, 1 - rate.high, 1 - rate.low)
        return rates

    def unlinked(self) -> tuple[str, ...]:
        """Return the names that no chain of comparisons links with the first."""
        reached = np.zeros(len(self.names), dtype=bool)
        reached[0] = True
        for _ in self.names:
            reached |= (self.wins + self.wins.T)[reached].any(0)
        return tuple(name for name, linked in zip(self.names, reached, strict=True) if not linked)

    @cached_property
    def _sides(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        place = {name: i for i, name in enumerate(self.names)}
        pairs = [(place[each.first], place[each.second]) for each in self.comparisons]
        first, second = np.array(pairs, dtype=np.int64).T
        return first, second

    @cached_property
    def _errors(self) -> tuple[Array, TwoWay]:
        """Inverse Hessian, and the clustered covariance of the scores."""
        first, second = self._sides
        theta = self.strengths
        scores = np.array([each.score for each in self.comparisons])
        residuals = scores - expit(theta[first] - theta[second])
        contributions = np.zeros((len(scores), len(theta)))
        votes = np.arange(len(scores))
        contributions[votes, first] = residuals
        contributions[votes, second] = -residuals
        prompts = [each.prompt for each in self.comparisons]
        voters = [each.voter for each in self.comparisons]
        hessian = _hessian(theta, self.wins + self.wins.T, RIDGE)
        inverse = np.asarray(np.linalg.inv(hessian), dtype=np.float64)
        return inverse, TwoWay(contributions, prompts, voters)

    @cached_property
    def _spread(self) -> float:
        """Variance of scores by that of decided ones: `p (1 - p) - ties / 4` over `p (1 - p)`.

        One decided comparison is added, so that ties alone leave some.
        """
        rates = expit(self.strengths[:, None] - self.strengths[None])
        met = self.wins + self.wins.T
        variance = float((met * rates * (1 - rates)).sum() / met.sum())
        ties = sum(each.score == 0.5 for each in self.comparisons) / (len(self.comparisons) + 1)
        return max(0.0, 1 - ties / (4 * variance))

    def _along(self, weights: Array) -> Difference:
        inverse, scores = self._errors
        least = self._spread * float(weights @ inverse @ weights)
        error = scores.along(inverse @ weights, least)
        value, stderr = float(weights @ self.strengths), math.sqrt(error.variance)
        p = two_sided_p(value / stderr, error.degrees)
        return Difference(value, stderr, value - error.reach, value + error.reach, p)

    def _rate(self, name: str, other: str) -> WinRate | None:
        sides = {(name, other): 1.0, (other, name): -1.0}
        votes = [each for each in self.comparisons if (each.first, each.second) in sides]
        if not votes:
            return None
        points = [each.score if each.first == name else 1 - each.score for each in votes]
        return share_of_votes(
            points, [each.prompt for each in votes], [each.voter for each in votes]
        )


def strengths(wins: Array, ridge: float = RIDGE) -> Array:
    """Maximise the penalised likelihood by Newton's method.

    Args:
        wins: Wins of each (row) over each (column), ties counted half, shape [names, names].
        ridge: Weight of `sum_i theta_i^2 / 2` in the penalty, above 0.

    Returns:
        Strengths in log-odds, mean 0, shape [names]; a name without comparisons has 0.

    Example:
        >>> strengths(np.array([[0.0, 1.0], [1.0, 0.0]])).tolist()
        [0.0, 0.0]
    """
    theta = np.zeros(len(wins))
    met = wins + wins.T
    for _ in range(STEPS):
        expected = met * expit(theta[:, None] - theta[None])
        gradient = (wins - expected).sum(1) - ridge * theta
        step = np.linalg.solve(_hessian(theta, met, ridge), gradient)
        longest = float(np.abs(step).max())
        theta = theta + step * min(1.0, LONGEST_STEP / max(longest, 1e-300))
        if longest < 1e-10:
            break
    return theta - theta.mean()


def compared(names: Iterable[str], comparisons: Iterable[Comparison]) -> dict[str, float]:
    """Return the strengths of those names that were compared at all, without intervals.

    Args:
        names: Candidates of one prompt, for instance.
        comparisons: Of two of them each, any number.

    Returns:
        Strength by name, rounded to six decimals so that what nothing tells apart is equal.

    Example:
        >>> one = Comparison("x", "y", 0.5, "a cat", "ann")
        >>> compared(("x", "y", "z"), [one])
        {'x': 0.0, 'y': 0.0}
    """
    votes = tuple(comparisons)
    seen = {name for each in votes for name in (each.first, each.second)}
    kept = tuple(name for name in names if name in seen)
    if len(kept) < 2:
        return {}
    found = strengths(BradleyTerry(kept, votes).wins)
    return {name: round(float(each), 6) + 0.0 for name, each in zip(kept, found, strict=True)}


def expit(x: Array) -> Array:
    """Logistic function: `1 / (1 + exp(-x))`, for strengths the expected win rate."""
    return 0.5 * (1 + np.tanh(0.5 * x))


def _hessian(theta: Array, met: Array, ridge: float) -> Array:
    """Negated second derivatives of the penalised log-likelihood, shape [names, names]."""
    rates = expit(theta[:, None] - theta[None])
    weights = met * rates * (1 - rates)
    return np.diag(weights.sum(1) + ridge) - weights


def holm(values: Sequence[float]) -> list[float]:
    """Adjust p values of several tests by Holm's method, which bounds any false rejection.

    Example:
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]
    """
    order = sorted(range(len(values)), key=values.__getitem__)
    adjusted, highest = [0.0] * len(values), 0.0
    for rank, place in enumerate(order):
        highest = max(highest, min(1.0, (len(values) - rank) * values[place]))
        adjusted[place] = highest
    return adjusted
