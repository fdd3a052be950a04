"""What scores of a comparison say: settings that the search chose, paired gains, tables.

A row is trained with several settings. Its policies are frozen dataclasses with a `name` and a
`pool`; their fields are columns of the scores. The search is on pool 0: every policy at its own
best guidance on some validation prompts, then the highest mean score of `nano_checker` on all of
them. Examiner and judge have no say.
"""

import re
from collections.abc import Callable, Hashable, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from committed import grouped, read

from tastemaker.metrics.clusters import MeanInterval
from tastemaker.storage.files import write_text

SCALES = (1.5, 3.0, 6.0)
CHECKER, OBEYED = "checker", "obeyed"
COLUMNS = (CHECKER, "examiner", OBEYED, "judge")
"""Scores of an image: the one that searches first."""

Policy = Any
Cell = Mapping[str, np.ndarray]
"""Columns of a policy's images of one split at one guidance, by number of the image."""
Pools = Mapping[int, np.ndarray]
"""A value per image, by pool."""


class NotMeasured(LookupError):
    """Scores that are not there."""


def searched(cell: Callable[..., Cell], policy: Policy) -> tuple[float, Cell]:
    """Return a policy's best guidance, and its scores on all validation prompts there."""
    some = {scale: cell(policy, "guidance", scale) for scale in SCALES}
    best = max(SCALES, key=lambda scale: some[scale][CHECKER].mean())
    rest = cell(policy, "validation", best)
    return best, {name: np.concatenate([each, rest[name]]) for name, each in some[best].items()}


def chosen(cell: Callable[..., Cell], tried: Mapping[Policy, Policy]) -> tuple[Policy, float]:
    """Return what is tested in place of the best policy of a search, and its guidance.

    Args:
        cell: Returns scores of a policy, a split and a guidance.
        tried: What is tested, by the policy that is searched.
    """
    found = {policy: searched(cell, policy) for policy in tried}
    best = max(found, key=lambda policy: found[policy][1][CHECKER].mean())
    return tried[best], found[best][0]


def parts(table: pa.Table, policy: type) -> dict[tuple[Policy, str, float], pa.Table]:
    """Split scores by policy, split and guidance, images in order."""
    names = [*(field.name for field in fields(policy)), "split", "guidance"]
    found = grouped(table.sort_by("number"), names).items()
    return {(policy(*key[:-2]), *key[-2:]): part for key, part in found}


def columns(table: pa.Table) -> Cell:
    """Columns of numbers."""
    kinds = {field.name: field.type for field in table.schema}
    return {name: table[name].to_numpy() for name, kind in kinds.items() if kind != pa.string()}


class Scores:
    """Scores by policy, and the settings that the search chose.

    Args:
        table: A row per image, as `Comparison.measure` makes them, or its file.
        policy: Type of policies.
        tried: `Comparison.tried`.
    """

    def __init__(
        self,
        table: pa.Table | Path,
        policy: type,
        tried: Callable[[Hashable], Mapping[Policy, Policy]],
    ) -> None:
        table = read(table) if isinstance(table, Path) else table
        self.cells = {key: columns(part) for key, part in parts(table, policy).items()}
        self.tried = tried

    def cell(self, policy: Policy, split: str, scale: float) -> Cell:
        """Return columns of a policy's images.

        Raises:
            NotMeasured: They are not there.
        """
        try:
            return self.cells[policy, split, scale]
        except KeyError:
            raise NotMeasured(policy, split, scale) from None

    def chosen(self, row: Hashable) -> tuple[Policy, float] | None:
        """Return what is tested of a row, and its guidance; None where the search is not whole."""
        try:
            return chosen(self.cell, self.tried(row))
        except NotMeasured:
            return None

    def tested(self, row: Hashable) -> dict[int, Cell]:
        """Return a row's test images by pool; empty where there are none."""
        if (setting := self.chosen(row)) is None:
            return {}
        like, scale = replace(setting[0], pool=0), setting[1]
        return {
            policy.pool: cell
            for (policy, split, at), cell in sorted(self.cells.items(), key=lambda e: e[0][0].pool)
            if (replace(policy, pool=0), split, at) == (like, "test", scale)
        }

    def gain(self, row: Hashable, other: Hashable, column: str) -> Pools:
        """Return paired differences of two rows, of their test images by pool."""
        first, second = self.tested(row), self.tested(other)
        return {
            pool: first[pool][column] - second[pool][column] for pool in first if pool in second
        }


def shown(found: MeanInterval, column: str) -> str:
    """Format a mean with its interval; shares in points."""
    factor, digits = (100, 1) if column == OBEYED else (1, 2)
    mean, low, high = (f"{factor * each:+.{digits}f}" for each in (found[0], *found[2:]))
    return mean if np.isnan(found.low) else f"{mean} [{low}, {high}]"


def header(*titles: str) -> list[str]:
    """First two lines of a table."""
    return [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]


def filled(text: str, tables: Mapping[str, Callable[[], list[str]]]) -> str:
    """Replace what lies between `<!-- NAME -->` and `<!-- end -->` by the lines of that table."""

    def table(match: re.Match[str]) -> str:
        return "\n".join([f"<!-- {match[1]} -->", *tables[match[1]](), "<!-- end -->"])

    return re.sub(rf"<!-- ({'|'.join(tables)}) -->\n.*?<!-- end -->", table, text, flags=re.DOTALL)


def refill(readme: Path, new: Callable[[str], str]) -> None:
    """Rewrite the tables of a page."""
    write_text(readme, new(readme.read_text(encoding="utf-8")))
