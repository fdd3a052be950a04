"""How often the policy's image beats the base's, on the same prompt and seed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Z95 = 1.959963984540054


@dataclass(frozen=True)
class WinRate:
    """A win rate with its 95% interval, all in [0, 1]."""

    value: float
    low: float
    high: float


def win_rate(policy: Sequence[float], base: Sequence[float]) -> WinRate:
    """Share of comparisons won, ties counted half, with the Wilson score interval.

    `w = (#{p > b} + #{p = b} / 2) / n`; the interval is
    `(w + z^2/2n +- z sqrt(w(1-w)/n + z^2/4n^2)) / (1 + z^2/n)`, `z = 1.96`.

    Ties make the count no longer binomial; their variance is smaller than the interval assumes, so
    that the interval is on the safe side.

    Args:
        policy: Scores of the policy's images.
        base: Scores of the base's images of the same prompts and seeds, in the same order.

    Returns:
        The rate and its interval.

    Raises:
        ValueError: The lengths differ or are 0.

    Example:
        >>> win_rate([1.0, 1.0, 0.0, 1.0], [0.0, 0.0, 0.0, 2.0]).value
        0.625

    References:
        Wilson (1927), Probable inference, the law of succession, and statistical inference.
    """
    _check_paired(policy, base)
    n = len(policy)
    w = sum((p > b) + 0.5 * (p == b) for p, b in zip(policy, base, strict=True)) / n
    centre = (w + Z95**2 / (2 * n)) / (1 + Z95**2 / n)
    half = Z95 * math.sqrt(w * (1 - w) / n + Z95**2 / (4 * n * n)) / (1 + Z95**2 / n)
    return WinRate(w, max(0.0, centre - half), min(1.0, centre + half))


def win_matrix(scores: Mapping[str, Sequence[float]]) -> dict[str, dict[str, WinRate]]:
    """Win rate of every model against every other one.

    `matrix[model][baseline] = win_rate(scores[model], scores[baseline])`

    The comparisons are image by image, over all prompts and seeds. Each interval is that of one
    comparison alone: among many of them, some miss the true rate.

    Args:
        scores: Model name to its images' scores, all of the same prompts and seeds in the same
            order; two models or more.

    Returns:
        A row a model, which holds all others as baselines; the rows are in the order given.

    Raises:
        ValueError: The numbers of scores differ or are 0, or there are fewer than two models.

    Example:
        >>> matrix = win_matrix({"dpo": [1.0, 2.0], "sft": [0.0, 3.0], "base": [0.0, 2.0]})
        >>> {baseline: rate.value for baseline, rate in matrix["dpo"].items()}
        {'sft': 0.5, 'base': 0.75}
    """
    if len(scores) < 2:
        raise ValueError(f"{list(scores)} cannot be compared; give two models or more")
    numbers = {name: len(values) for name, values in scores.items()}
    if len(set(numbers.values())) > 1:
        raise ValueError(f"scores cannot be compared one by one; their numbers differ: {numbers}")
    return {
        name: {
            baseline: win_rate(values, others)
            for baseline, others in scores.items()
            if baseline != name
        }
        for name, values in scores.items()
    }


def beat_ratio(policy: Sequence[float], base: Sequence[float]) -> float:
    """Share of comparisons strictly won: `#{p > b} / n`.

    The measure of the DDE paper, on equal prompts and seeds. The paper does not say how ties are
    counted; that they count as not won is our reading. So the ratios of the two directions add up
    to less than 1 where there are ties; `win_rate` counts them half and does not have that bias.

    Args:
        policy: Scores of the policy's images.
        base: Scores of the base's images of the same prompts and seeds, in the same order.

    Returns:
        The share, in [0, 1]; 0 for a model against itself.

    Raises:
        ValueError: The lengths differ or are 0.

    Example:
        >>> beat_ratio([1.0, 1.0, 0.0, 1.0], [0.0, 0.0, 0.0, 2.0])  # won, won, tied, lost
        0.5

    References:
        Shi et al. (DDE), arXiv 2411.14871.
    """
    _check_paired(policy, base)
    return sum(p > b for p, b in zip(policy, base, strict=True)) / len(policy)


def mean_and_stderr(values: Sequence[float]) -> tuple[float, float]:
    """Mean and standard error of the mean (0 for a single value).

    Args:
        values: At least one.

    Returns:
        Mean, and sample standard deviation over sqrt(n).

    Example:
        >>> mean_and_stderr([1.0, 3.0])
        (2.0, 1.0)
    """
    n = len(values)
    mean = math.fsum(values) / n
    if n == 1:
        return mean, 0.0
    variance = math.fsum((value - mean) ** 2 for value in values) / (n - 1)
    return mean, math.sqrt(variance / n)


def _check_paired(policy: Sequence[float], base: Sequence[float]) -> None:
    if len(policy) != len(base) or not policy:
        raise ValueError(f"{len(policy)} and {len(base)} scores cannot be compared one by one")
