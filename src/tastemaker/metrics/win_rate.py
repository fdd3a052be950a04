"""Win rates of the policy's images against the base's, on the same prompts and seeds."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

from tastemaker.metrics.clusters import cluster_sums, two_sided_95


@dataclass(frozen=True)
class WinRate:
    """A win rate with its 95% interval, all in [0, 1]."""

    value: float
    low: float
    high: float


def win_rate(
    policy: Sequence[float], base: Sequence[float], clusters: Sequence[Hashable] | None = None
) -> WinRate:
    """Share of comparisons won, ties counted half, with an interval clustered by prompt.

    `w = (#{p > b} + #{p = b} / 2) / n`. Images of one prompt win or lose together, so that n of
    them count as fewer: as `m = w (1 - w) / v`, with the cluster-robust variance `v` of `w` (see
    `mean_and_stderr`). The interval is Wilson's with that effective sample size and the quantile
    `t` of Student's distribution with clusters - 1 degrees:
    `(w + t^2/2m +- t sqrt(w(1-w)/m + t^2/4m^2)) / (1 + t^2/m)`.

    Where `v` is 0 (all won, all lost, all tied) nothing shows how prompts differ, and `m` is the
    number of clusters. One cluster alone has the interval from 0 to 1.

    In simulations of 192 prompts with 2 images and 25 with 10, at correlations of 0 to .8 within a
    prompt, it holds the true rate in 94 to 96% of cases for rates between 20 and 80%; with 25
    prompts at a rate of 95%, where about one prompt is lost, in 88%.

    Args:
        policy: Scores of the policy's images, all finite.
        base: Scores of the base's images of the same prompts and seeds, in the same order.
        clusters: What each comparison belongs to: its prompt. None: all are independent.

    Returns:
        The rate and its interval.

    Raises:
        ValueError: The lengths differ or are 0, or a score is not finite.

    Example:
        >>> win_rate([1.0, 1.0, 0.0, 1.0], [0.0, 0.0, 0.0, 2.0]).value
        0.625

    References:
        Wilson (1927), Probable inference, the law of succession, and statistical inference; Korn
        and Graubard (1998), Confidence intervals for proportions with small expected number of
        positive counts estimated from survey data (the effective sample size).
    """
    _check_paired(policy, base)
    n = len(policy)
    points = [2 * (p > b) + (p == b) for p, b in zip(policy, base, strict=True)]
    total = sum(points)
    w = total / (2 * n)
    # In whole numbers, 2 n times as large: rounding must not make a variance of what is 0.
    residuals = cluster_sums([n * each - total for each in points], clusters)
    g = len(residuals)
    if g == 1:
        return WinRate(w, 0.0, 1.0)
    square = sum(int(each) ** 2 for each in residuals)
    v = g / (g - 1) * square / (2 * n * n) ** 2
    m = w * (1 - w) / v if square else g
    t = two_sided_95(g - 1)
    centre = (w + t**2 / (2 * m)) / (1 + t**2 / m)
    half = t * math.sqrt(w * (1 - w) / m + t**2 / (4 * m * m)) / (1 + t**2 / m)
    return WinRate(w, max(0.0, centre - half), min(1.0, centre + half))


def win_matrix(
    scores: Mapping[str, Sequence[float]], clusters: Sequence[Hashable] | None = None
) -> dict[str, dict[str, WinRate]]:
    """Win rate of every model against every other one.

    `matrix[model][baseline] = win_rate(scores[model], scores[baseline])`

    The comparisons are image by image, over all prompts and seeds. Each interval is that of one
    comparison alone: among many of them, some miss the true rate.

    Args:
        scores: Model name to its images' scores, all of the same prompts and seeds in the same
            order; two models or more.
        clusters: What each comparison belongs to: its prompt. None: all are independent.

    Returns:
        One row per model, with all others as baselines; the rows are in the order given.

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
            baseline: win_rate(values, others, clusters)
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


def _check_paired(policy: Sequence[float], base: Sequence[float]) -> None:
    if len(policy) != len(base) or not policy:
        raise ValueError(f"{len(policy)} and {len(base)} scores cannot be compared one by one")
    if not all(map(math.isfinite, (*policy, *base))):
        raise ValueError("a score that is not finite neither wins nor loses")
