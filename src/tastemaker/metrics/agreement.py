"""Agreement between people: Krippendorff's alpha."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from tastemaker.core.seeding import keyed_seed
from tastemaker.metrics.two_way import codes

Array = npt.NDArray[np.float64]
Level = Literal["nominal", "ordinal"]

DRAWS = 2000
"""Resamples of the clusters."""


class Alpha(NamedTuple):
    """Krippendorff's alpha with its 95% interval; NaN where it is not defined.

    Args:
        value: 1 for perfect agreement, 0 for that of chance, below 0 for less.
        low: Lower end.
        high: Upper end.
        units: Units with two values or more, which alone count.
        values: Values in them.
    """

    value: float
    low: float
    high: float
    units: int
    values: int


def krippendorff_alpha(
    units: Sequence[Sequence[Hashable]],
    values: Sequence[Hashable],
    level: Level = "nominal",
    clusters: Sequence[Hashable] | None = None,
) -> Alpha:
    """Agreement beyond chance of any number of voters, each of whom may have judged any units.

    `alpha = 1 - D_o / D_e`: the mean difference between values of one unit over that between any
    two. Coincidences `o_ck` count each ordered pair of a unit's m values as `1 / (m - 1)`; with
    `n_c = sum_k o_ck` and `n = sum_c n_c`, `D_o = sum o_ck delta_ck / n` and
    `D_e = sum n_c n_k delta_ck / (n (n - 1))`. Nominal values differ by 1; ordinal ones by
    `(sum_{g=c..k} n_g - (n_c + n_k) / 2)^2`, the values between them. Where all values are equal
    alpha is not defined: nothing shows what chance would give.

    The interval is that of a bootstrap of whole clusters, percentiles 2.5 and 97.5; the voters are
    taken as they are.

    Args:
        units: Each unit's values, one per voter who judged it.
        values: All possible values, for ordinal ones in order.
        level: Kind of difference.
        clusters: Cluster of each unit, such as its prompt; None: each is one of its own.

    Returns:
        Alpha and its interval, which is NaN with fewer than two clusters.

    Raises:
        ValueError: A value is not among `values`.

    Example:
        >>> units = [[1, 1], [2, 2], [3, 3], [1, 2]]
        >>> round(krippendorff_alpha(units, [1, 2, 3]).value, 3)
        0.667

    References:
        Krippendorff (2011), Computing Krippendorff's alpha-reliability.
    """
    place = {value: number for number, value in enumerate(values)}
    if unknown := [each for unit in units for each in unit if each not in place]:
        raise ValueError(f"{unknown[0]!r} is not one of the values {list(values)}")
    kept = [number for number, unit in enumerate(units) if len(unit) > 1]
    if not kept:
        return Alpha(math.nan, math.nan, math.nan, 0, 0)
    cells = np.stack([_coincidences(units[number], place) for number in kept])
    value = float(_alpha(cells.sum(0)[None], level)[0])
    groups = codes(kept if clusters is None else [clusters[number] for number in kept])
    low, high = _interval(cells, groups, level)
    return Alpha(value, low, high, len(kept), sum(len(units[number]) for number in kept))


def _coincidences(unit: Sequence[Hashable], place: dict[Hashable, int]) -> Array:
    """Ordered pairs of a unit's values, shape [values, values], which sum to their number."""
    counts = np.bincount([place[each] for each in unit], minlength=len(place)).astype(np.float64)
    return (np.outer(counts, counts) - np.diag(counts)) / (len(unit) - 1)


def _interval(cells: Array, groups: npt.NDArray[np.int64], level: Level) -> tuple[float, float]:
    number = int(groups.max()) + 1
    if number < 2:
        return math.nan, math.nan
    sums = np.zeros((number, *cells.shape[1:]))
    np.add.at(sums, groups, cells)
    draw = np.random.default_rng(keyed_seed(0, "krippendorff_alpha", number))
    times = draw.multinomial(number, np.full(number, 1 / number), DRAWS)
    drawn = _alpha(np.tensordot(times.astype(np.float64), sums, 1), level)
    drawn = drawn[np.isfinite(drawn)]
    if not len(drawn):
        return math.nan, math.nan
    low, high = np.percentile(drawn, [2.5, 97.5])
    return float(low), float(high)


def _alpha(coincidences: Array, level: Level) -> Array:
    """Alpha of each table of coincidences, [tables, values, values] to [tables]."""
    counts = coincidences.sum(2)
    total = counts.sum(1)
    if level == "ordinal":
        ranks = counts.cumsum(1) - counts / 2
        apart = (ranks[:, :, None] - ranks[:, None]) ** 2
    else:
        apart = np.broadcast_to(1 - np.eye(counts.shape[1]), coincidences.shape)
    observed = (coincidences * apart).sum((1, 2)) / total
    expected = (counts[:, :, None] * counts[:, None] * apart).sum((1, 2)) / (total * (total - 1))
    alpha = np.full(len(total), np.nan)
    np.divide(observed, expected, out=alpha, where=expected > 0)
    return 1 - alpha
