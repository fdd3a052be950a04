"""How the judge sees the pairs that the training scorers chose: better to it too, or not?"""

import math
import statistics
from pathlib import Path

import pyarrow.parquet as pq
from rules import AXES, ROWS

from tastemaker.storage.groups import Groups
from tastemaker.storage.pool import Pool

POOL = "16-images-round-1-of-1"


def key_of(name: str) -> str:
    """A row's name as a folder's."""
    return "".join(each if each.isalnum() else "-" for each in name)


def agreement(folders: list[Path]) -> str:
    """Where each rule's pairs point, by the scorers that chose them and by the judge.

    Args:
        folders: One a character, whose pool the judge has scored.

    Returns:
        Correlations within prompts and a table, both means over characters.
    """
    scores = {folder: _spreads(folder / "pools" / POOL) for folder in folders}
    lines = [
        "| row | IS | TS | angle | judge's IS | judge's TS | judge's angle |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, row in ROWS.items():
        if row.images == 16 and row.steps == 1:
            found = [_mean_pair(folder, name, scores[folder]) for folder in folders]
            across = [statistics.fmean(values) for values in zip(*found, strict=True)]
            cells = [*map(_signed, across[:2]), _angle(*across[:2])]
            cells += [*map(_signed, across[2:]), _angle(*across[2:])]
            lines.append(f"| {name} | {' | '.join(cells)} |")
    pairs = ((0, 1), (2, 3), (0, 2), (1, 3))
    correlations = [
        f"{AXES[a]} and {AXES[b]}: "
        f"{statistics.fmean(_correlation(folder, AXES[a], AXES[b]) for folder in folders):+.2f}"
        for a, b in pairs
    ]
    return "\n".join([*lines, "", *(f"* {line}" for line in correlations)]) + "\n"


def _spreads(folder: Path) -> dict[str, list[float]]:
    """Every candidate's scores in their spread over the pool, by its id."""
    return {
        candidate: [group.scores[axis][place] / group.deviations[axis] for axis in AXES]
        for group in Groups(Pool(folder))
        for place, candidate in enumerate(group.candidate_ids)
    }


def _mean_pair(folder: Path, name: str, scores: dict[str, list[float]]) -> list[float]:
    """Mean difference of a row's pairs, chosen minus rejected, on every axis."""
    pairs = pq.read_table(folder / "pairs" / f"{key_of(name)}-1" / "pairs.parquet").to_pylist()
    chosen = [scores[pair["chosen_id"]] for pair in pairs]
    rejected = [scores[pair["rejected_id"]] for pair in pairs]
    return [
        statistics.fmean(c[axis] - r[axis] for c, r in zip(chosen, rejected, strict=True))
        for axis in range(len(AXES))
    ]


def _correlation(folder: Path, first: str, second: str) -> float:
    """Of two scores of one prompt's candidates, over the pool."""
    apart: tuple[list[float], list[float]] = ([], [])
    for group in Groups(Pool(folder / "pools" / POOL)):
        for values, axis in zip(apart, (first, second), strict=True):
            mean = statistics.fmean(group.scores[axis])
            values += [score - mean for score in group.scores[axis]]
    return statistics.correlation(*apart)


def _signed(value: float) -> str:
    return f"{value:+.2f}"


def _angle(across: float, up: float) -> str:
    return f"{math.degrees(math.atan2(up, across)):.0f}"
