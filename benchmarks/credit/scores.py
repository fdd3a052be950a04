"""Gains of the credit schemes: pools as clusters, and at equal distance to the base's images."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
from compare import BANDS, ROWS, Policy, tried
from gains import Cell, NotMeasured, Pools, Scores, searched

from tastemaker.metrics.clusters import MeanInterval, mean_interval

Row = tuple[str, str]
"""Twin and scheme."""


def opened(table: pa.Table | Path) -> Scores:
    """Read scores."""
    return Scores(table, Policy, tried)


def fronts(scores: Scores, row: Row) -> dict[Policy, Cell]:
    """Return the validation images of a row's settings; empty where the search is not whole."""
    try:
        return {policy: searched(scores.cell, policy)[1] for policy in tried(row)}
    except NotMeasured:
        return {}


def rows(scores: Scores) -> list[Row]:
    """Return the rows that were tested, base and bands apart, twins together."""
    apart = ("base", *BANDS)
    return sorted((r for r in ROWS if r[1] not in apart and scores.tested(r)), key=lambda r: r[0])


def interval(values: Pools) -> MeanInterval:
    """Mean of images, with pools as clusters."""
    clusters = [pool for pool, part in values.items() for _ in part]
    return mean_interval(np.concatenate([*values.values()]).tolist(), clusters)


def equal_distance(scores: Scores, row: Row, column: str) -> MeanInterval | None:
    """Difference to uniform at the distance of uniform's setting, clustered by prompt.

    Along the betas of the search, the base at distance 0, gains are interpolated linearly between
    the two settings around that distance, prompt by prompt.

    Returns:
        None where no beta of the scheme goes as far.
    """
    uniform = (row[0], "uniform")
    (base,) = (cell[column] for cell in fronts(scores, (row[0], "base")).values())
    own = fronts(scores, uniform)[scores.chosen(uniform)[0]]
    target = own["distance"].mean()
    points = [(0.0, base)]
    points += [(cell["distance"].mean(), cell[column]) for cell in fronts(scores, row).values()]
    points.sort(key=lambda point: point[0])
    for (near, low), (far, high) in pairwise(points):
        if near <= target <= far:
            share = (target - near) / (far - near)
            return mean_interval((low + share * (high - low) - own[column]).tolist())
    return None
