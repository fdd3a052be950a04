"""Scores of every image by policy: settings that the search chose, paired gains, intervals."""

from collections import defaultdict
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
from compare import BANDS, BETAS, COLUMNS, ROWS, SCALES

from tastemaker.metrics.clusters import MeanInterval, mean_interval
from tastemaker.storage.parquet import read_table

OBEYED = "obeyed"

Cell = Mapping[str, np.ndarray]
"""Columns of a policy's images of one split at one guidance, by number of the prompt."""

Pools = Mapping[int, np.ndarray]
"""A value per image, by pool."""


class Scores:
    """Scores by policy, and the settings that the search chose.

    Args:
        table: A row per image, as `Comparison.measure` makes them.
    """

    def __init__(self, table: pa.Table) -> None:
        keys = ("twin", "scheme", "split", "beta", "pool", "guidance")
        places: dict[tuple, list[int]] = defaultdict(list)
        table = table.sort_by("number")
        for place, key in enumerate(zip(*(table[k].to_pylist() for k in keys), strict=True)):
            places[key].append(place)
        columns = {name: table[name].to_numpy() for name in (*COLUMNS, "distance")}
        self.cells: dict[tuple, Cell] = {
            key: {name: column[rows] for name, column in columns.items()}
            for key, rows in places.items()
        }

    def searched(self, twin: str, scheme: str, beta: int) -> tuple[float, Cell] | None:
        """Return the best guidance of a setting and its validation images; None if not all are."""
        some = {s: self.cells.get((twin, scheme, "guidance", beta, 0, s)) for s in SCALES}
        if None in some.values():
            return None
        best = max(SCALES, key=lambda scale: some[scale][COLUMNS[0]].mean())
        rest = self.cells.get((twin, scheme, "validation", beta, 0, best))
        return rest and (best, {k: np.concatenate([v, rest[k]]) for k, v in some[best].items()})

    def fronts(self, twin: str, scheme: str) -> dict[int, tuple[float, Cell]]:
        """Return the searched settings of a row by beta."""
        betas = (0,) if scheme == "base" else BETAS
        found = {beta: self.searched(twin, scheme, beta) for beta in betas}
        return {beta: each for beta, each in found.items() if each is not None}

    def chosen(self, twin: str, scheme: str) -> tuple[int, float]:
        """Return beta and guidance of the highest mean score of the scorer that searches."""
        found = self.fronts(twin, scheme)
        best = max(found, key=lambda beta: found[beta][1][COLUMNS[0]].mean())
        return best, found[best][0]

    def tested(self, twin: str, scheme: str) -> dict[int, Cell]:
        """Return a row's test images by pool; empty where there are none."""
        like = "uniform" if scheme in BANDS else scheme
        if not self.fronts(twin, like):
            return {}
        beta, scale = self.chosen(twin, like)
        row = (twin, scheme, "test", beta)
        return {key[4]: c for key, c in self.cells.items() if key[:4] == row and key[5] == scale}

    def rows(self) -> list[tuple[str, str]]:
        """Return twin and scheme of the rows that were tested, bands apart, twins together."""
        rows = (row for row in ROWS if row[1] not in BANDS and self.tested(*row))
        return sorted(rows, key=lambda row: row[0])

    def gain(self, twin: str, scheme: str, other: str, column: str) -> Pools:
        """Return paired differences of two rows of a twin, of their test images by pool."""
        first, second = self.tested(twin, scheme), self.tested(twin, other)
        return {
            pool: first[pool][column] - second[pool][column]
            for pool in first
            if pool in second and len(first[pool][column]) == len(second[pool][column])
        }


def interval(values: Pools) -> MeanInterval:
    """Mean of images, with pools as clusters."""
    clusters = [pool for pool, part in values.items() for _ in part]
    return mean_interval(np.concatenate([*values.values()]).tolist(), clusters)


def equal_distance(scores: Scores, twin: str, scheme: str, column: str) -> MeanInterval | None:
    """Difference to uniform at the distance of uniform's setting, clustered by prompt.

    Along the betas of the search, the base at distance 0, gains are interpolated linearly between
    the two settings around that distance, prompt by prompt.

    Returns:
        None where no beta of the scheme goes as far.
    """
    base = scores.fronts(twin, "base")[0][1][column]
    own = scores.fronts(twin, "uniform")[scores.chosen(twin, "uniform")[0]][1]
    target = own["distance"].mean()
    points = [(0.0, base)]
    points += [(c["distance"].mean(), c[column]) for _, c in scores.fronts(twin, scheme).values()]
    points.sort(key=lambda point: point[0])
    for (near, low), (far, high) in pairwise(points):
        if near <= target <= far:
            share = (target - near) / (far - near)
            return mean_interval((low + share * (high - low) - own[column]).tolist())
    return None


def gathered(output: Path) -> pa.Table:
    """Read all scores of a comparison, in types that take little room."""
    table = pa.concat_tables(map(read_table, sorted((output / "scores").glob("*.parquet"))))
    kinds = {"beta": pa.int16(), "pool": pa.int8(), "number": pa.int16(), OBEYED: pa.int8()}
    fields = [(name, kinds.get(name, table[name].type)) for name in table.column_names]
    return table.cast(pa.schema(fields))
