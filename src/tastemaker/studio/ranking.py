"""Running estimate of a Bradley-Terry ranking: which comparison would teach most."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations

PRIOR_VARIANCE = 2.0
"""Of a strength, in squared log odds: of two images a deviation apart one wins in 88 %."""

RATING_VARIANCE = 1.0
"""Of one rating, in squared steps of the scale."""

Player = tuple[int, int]
"""Question, and image or model."""


class Ranking:
    """Strengths with variances, changed by each vote and never refitted.

    Images or models i have strengths `s_i ~ N(m_i, v_i)`, and i beats j with probability
    `sigmoid(s_i - s_j)`. A comparison is one step of an extended Kalman filter, Glicko without
    its clock: with `p = sigmoid(m_i - m_j)`, `v = v_i + v_j`, `w = p (1 - p)` and outcome y,

        m_i += v_i (y - p) / (1 + w v)        v_i -= v_i^2 w / (1 + w v)

    and the reverse for j. It serves to choose what to show, not to report: `tastemaker.metrics`
    fits all votes at once.

    References:
        M. Glickman, Parameter estimation in large dynamic paired comparison experiments, 1999.
    """

    def __init__(self) -> None:
        self._beliefs: dict[Player, tuple[float, float]] = {}

    def belief(self, player: Player) -> tuple[float, float]:
        """Return mean and variance of a strength."""
        return self._beliefs.get(player, (0.0, PRIOR_VARIANCE))

    def compare(self, winner: Player, loser: Player, outcome: float = 1.0) -> None:
        """Learn from one comparison.

        Args:
            winner: The first.
            loser: The second.
            outcome: 1 where the first won, 0.5 for a tie.
        """
        (m_i, v_i), (m_j, v_j) = self.belief(winner), self.belief(loser)
        p = _win_probability(m_i, m_j)
        w = p * (1 - p)
        scale = 1 + w * (v_i + v_j)
        step = (outcome - p) / scale
        self._beliefs[winner] = (m_i + v_i * step, v_i - v_i**2 * w / scale)
        self._beliefs[loser] = (m_j - v_j * step, v_j - v_j**2 * w / scale)

    def best_worst(self, players: Sequence[Player], best: int, worst: int) -> None:
        """Learn that one of several beats all others, and another loses to all.

        Args:
            players: In any order.
            best: Index of the best.
            worst: Index of the worst.
        """
        for place, player in enumerate(players):
            if place != best:
                self.compare(players[best], player)
            if place not in (best, worst):
                self.compare(player, players[worst])

    def rate(self, player: Player, rating: float) -> None:
        """Learn from a rating of one image: the mean of a normal with known variance."""
        mean, variance = self.belief(player)
        gain = variance / (variance + RATING_VARIANCE)
        self._beliefs[player] = (mean + gain * (rating - mean), variance * (1 - gain))

    def information(self, players: Sequence[Player]) -> float:
        """Return what is expected to be learnt by showing some together, in nats.

        Of two it is `log(1 + w v) / 2`, the gain in information on their difference; of more the
        sum over their pairs; of one `log(1 + v / RATING_VARIANCE) / 2`.

        Example:
            >>> round(Ranking().information([(0, 1), (0, 2)]), 3)
            0.347
        """
        if len(players) == 1:
            return 0.5 * math.log1p(self.belief(players[0])[1] / RATING_VARIANCE)
        beliefs = [self.belief(player) for player in players]
        total = 0.0
        for (m_i, v_i), (m_j, v_j) in combinations(beliefs, 2):
            p = _win_probability(m_i, m_j)
            total += 0.5 * math.log1p(p * (1 - p) * (v_i + v_j))
        return total


def _win_probability(first: float, second: float) -> float:
    """`sigmoid(first - second)`, also far from 0."""
    return 0.5 * (1 + math.tanh((first - second) / 2))
