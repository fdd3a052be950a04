"""Means of values that come in clusters: several images of one prompt are not independent."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Hashable, Sequence
from statistics import NormalDist
from typing import NamedTuple


class MeanInterval(NamedTuple):
    """A mean with its standard error and 95% interval, NaN where one cluster alone has none."""

    mean: float
    stderr: float
    low: float
    high: float


def mean_interval(
    values: Sequence[float], clusters: Sequence[Hashable] | None = None
) -> MeanInterval:
    """Mean with a 95% interval clustered by prompt: `mean +- t stderr`.

    `t` is the quantile of Student's distribution with clusters - 1 degrees. Of paired differences,
    a policy's scores less the base's on equal prompts and seeds, it is the interval of the gain; of
    scores that are 0 or 1, that of a share.

    Args:
        values: As of `mean_and_stderr`.
        clusters: As of `mean_and_stderr`.

    Returns:
        Mean, standard error and both ends.

    Raises:
        ValueError: As of `mean_and_stderr`.

    Example:
        >>> [round(each, 2) for each in mean_interval([1.0, 1.0, 3.0, 3.0], ["a", "a", "b", "b"])]
        [2.0, 1.0, -10.71, 14.71]
    """
    mean, stderr = mean_and_stderr(values, clusters)
    degrees = len(set(range(len(values)) if clusters is None else clusters)) - 1
    reach = two_sided_95(degrees) * stderr if degrees else math.nan
    return MeanInterval(mean, stderr, mean - reach, mean + reach)


def relative_difference(
    values: Sequence[float], base: Sequence[float], clusters: Sequence[Hashable] | None = None
) -> MeanInterval:
    """Relative change of a mean against that of paired values: `r = mean(v) / mean(b) - 1`.

    Standard error and interval are those of the linearised ratio (delta method), the mean of
    `(v - (1 + r) b) / mean(b)`, so that what raises both values of a pair cancels.

    Args:
        values: One or more.
        base: The value that each is compared with, of a mean above 0.
        clusters: As of `mean_and_stderr`.

    Returns:
        The change, -0.05 for 5% less, with standard error and 95% interval.

    Raises:
        ValueError: As of `mean_and_stderr`.

    Example:
        >>> round(relative_difference([1.0, 2.0], [2.0, 3.0]).mean, 3)
        -0.4
    """
    level, ratio = math.fsum(base) / len(base), math.fsum(values) / math.fsum(base)
    gains = [(v - ratio * b) / level + ratio - 1 for v, b in zip(values, base, strict=True)]
    return mean_interval(gains, clusters)


def mean_and_stderr(
    values: Sequence[float], clusters: Sequence[Hashable] | None = None
) -> tuple[float, float]:
    """Mean and its standard error, robust to any correlation within a cluster.

    `v = G / (G - 1) sum_g (sum_{i in g} (x_i - mean))^2 / n^2`, the standard error is `sqrt(v)`.
    With clusters of one value each this is the sample standard deviation over sqrt(n).

    Args:
        values: At least one, all finite.
        clusters: What each value belongs to, for instance its prompt; values of different clusters
            are taken for independent. None: each value is a cluster of its own.

    Returns:
        Mean and standard error; NaN for the latter where there is one cluster alone, which says
        nothing of how others differ.

    Raises:
        ValueError: No values, one that is not finite, or another number of clusters.

    Example:
        >>> mean_and_stderr([1.0, 3.0])
        (2.0, 1.0)
        >>> mean_and_stderr([1.0, 1.0, 3.0, 3.0], ["a", "a", "b", "b"])
        (2.0, 1.0)

    References:
        Liang and Zeger (1986), Longitudinal data analysis using generalized linear models; Cameron
        and Miller (2015), A practitioner's guide to cluster-robust inference.
    """
    if not values or not all(math.isfinite(value) for value in values):
        raise ValueError(f"a mean needs finite values; {len(values)} were given")
    n = len(values)
    mean = math.fsum(values) / n
    sums = cluster_sums([value - mean for value in values], clusters)
    if len(sums) == 1:
        return mean, math.nan
    square = math.fsum(each * each for each in sums)
    return mean, math.sqrt(len(sums) / (len(sums) - 1) * square) / n


def cluster_sums(
    values: Sequence[float], clusters: Sequence[Hashable] | None = None
) -> list[float]:
    """Sum of the values of each cluster, clusters in the order in which they first appear.

    Args:
        values: One or more.
        clusters: What each value belongs to; None: each is a cluster of its own.

    Returns:
        A sum a cluster.

    Raises:
        ValueError: Another number of clusters than of values.

    Example:
        >>> cluster_sums([1.0, 2.0, 4.0], ["a", "b", "a"])
        [5.0, 2.0]
    """
    if clusters is None:
        return list(values)
    parts: dict[Hashable, list[float]] = defaultdict(list)
    for value, cluster in zip(values, clusters, strict=True):
        parts[cluster].append(value)
    return [math.fsum(part) for part in parts.values()]


def two_sided_95(degrees: int) -> float:
    """Quantile .975 of Student's t: standard errors on either side that a 95% interval reaches.

    The expansion in `1 / degrees` to fourth order, within .2% of the tables; 1 and 2 degrees have
    closed forms.

    Args:
        degrees: Clusters less one, 1 or more.

    Returns:
        From 12.7 for 1 to 1.96 for very many.

    Example:
        >>> [round(two_sided_95(degrees), 2) for degrees in (1, 2, 3, 10, 1000)]
        [12.71, 4.3, 3.18, 2.23, 1.96]

    References:
        Abramowitz and Stegun (1964), Handbook of mathematical functions, 26.7.5.
    """
    if degrees == 1:
        return math.tan(0.475 * math.pi)
    if degrees == 2:
        return 0.95 * math.sqrt(2 / (1 - 0.95**2))
    z = NormalDist().inv_cdf(0.975)
    terms = (
        z,
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return math.fsum(term / degrees**power for power, term in enumerate(terms))


def two_sided_p(t: float, degrees: int) -> float:
    """Probability that Student's t is further from 0 than a value: `P(|T| > |t|)`.

    The finite series in `cos(atan(t / sqrt(degrees)))`, exact for whole degrees; from 1,000 on the
    normal distribution's.

    Args:
        t: An estimate divided by its standard error.
        degrees: 1 or more.

    Returns:
        From 1 for 0 to 0 for infinity.

    Example:
        >>> [round(two_sided_p(2.0, degrees), 4) for degrees in (1, 2, 3, 10, 1000)]
        [0.2952, 0.1835, 0.1393, 0.0734, 0.0455]

    References:
        Abramowitz and Stegun (1964), Handbook of mathematical functions, 26.7.3 and 26.7.4.
    """
    if degrees >= 1000:
        return 2 * NormalDist().cdf(-abs(t))
    angle = math.atan(abs(t) / math.sqrt(degrees))
    cosine, odd = math.cos(angle), degrees % 2
    term, terms = cosine if odd else 1.0, []
    for power in range(2 + odd, degrees + 1, 2):
        terms.append(term)
        term *= cosine**2 * (power - 1) / power
    total = math.sin(angle) * math.fsum(terms)
    return max(0.0, 1 - (2 / math.pi * (angle + total) if odd else total))
