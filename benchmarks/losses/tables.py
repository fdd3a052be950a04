"""Table of README.md, computed from the scores of every image.

    python benchmarks/losses/tables.py                        # from the committed scores.parquet
    python benchmarks/losses/tables.py --output runs/losses   # gathers a comparison's scores first

Rows that are missing are left out, and a row is compared on the pools that it has.
"""

import argparse
import re
from collections import defaultdict
from pathlib import Path

import numpy as np
import pyarrow as pa
from compare import COLUMNS, ROWS, SCALES

from tastemaker.metrics.clusters import MeanInterval, mean_interval
from tastemaker.storage.parquet import read_table, write_table

HERE = Path(__file__).parent
SCORES = HERE / "scores.parquet"
OBEYED = "obeyed"

Cell = dict[str, np.ndarray]
"""Columns of the images of one policy, split and guidance, in order."""


class Scores:
    """Scores by policy, and the settings that the search chose.

    Args:
        table: A row per image, as `Comparison.measure` makes them.
    """

    def __init__(self, table: pa.Table) -> None:
        keys = ("row", "split", "value", "pool", "guidance")
        places: dict[tuple, list[int]] = defaultdict(list)
        table = table.sort_by("number")
        for place, key in enumerate(zip(*(table[k].to_pylist() for k in keys), strict=True)):
            places[key].append(place)
        columns = {name: table[name].to_numpy() for name in (*COLUMNS, "prompt")}
        self.cells: dict[tuple, Cell] = {
            key: {name: column[rows] for name, column in columns.items()}
            for key, rows in places.items()
        }

    def chosen(self, row: str) -> tuple[float, float] | None:
        """Return constant and guidance of the highest mean score of the scorer that searches."""
        found = {}
        for value in (0.0,) if row == "base" else ROWS[row].values:
            some = {s: self.cells.get((row, "guidance", value, 0, s)) for s in SCALES}
            if None in some.values():
                return None
            best = max(SCALES, key=lambda scale: some[scale][COLUMNS[0]].mean())
            rest = self.cells.get((row, "validation", value, 0, best))
            if rest is None:
                return None
            whole = np.concatenate([some[best][COLUMNS[0]], rest[COLUMNS[0]]])
            found[(value, best)] = whole.mean()
        return max(found, key=found.__getitem__)

    def tested(self, row: str) -> dict[int, Cell]:
        """Return a row's test images by pool; empty where there are none."""
        setting = self.chosen(row)
        if setting is None:
            return {}
        value, scale = setting
        wanted = (row, "test", value)
        return {key[3]: c for key, c in self.cells.items() if key[:3] == wanted and key[4] == scale}

    def gain(self, row: str, other: str, column: str) -> MeanInterval:
        """Return the mean paired difference of two rows' test images, prompts as clusters."""
        first, second = self.tested(row), self.tested(other)
        values, clusters = [], []
        for pool in sorted(first.keys() & second.keys()):
            values += (first[pool][column] - second[pool][column].astype(float)).tolist()
            clusters += [(pool, prompt) for prompt in first[pool]["prompt"].tolist()]
        return mean_interval(values, clusters)


def shown(found: MeanInterval, column: str) -> str:
    """Format a mean with its interval; shares in points."""
    factor, digits = (100, 1) if column == OBEYED else (1, 2)
    mean, low, high = (f"{factor * each:+.{digits}f}" for each in (found[0], *found[2:]))
    return f"{mean} [{low}, {high}]"


def rows_table(scores: Scores) -> list[str]:
    """The rows on test prompts: gains over the base, and over `dpo`."""
    titles = ("loss", "constant", "guidance", "pools", "obeyed", "points over the base")
    titles += ("points over dpo", "examiner over the base", "judge over the base")
    lines = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    for row in ("base", *ROWS):
        tested = scores.tested(row)
        if not tested:
            continue
        value, scale = scores.chosen(row)
        share = 100 * np.concatenate([cell[OBEYED] for cell in tested.values()]).mean()
        cells = ["", f"{scale:g}", str(len(tested)), f"{share:.1f} %", "", "", "", ""]
        if row != "base":
            cells[0] = f"{ROWS[row].constant.removeprefix('.')} {value:g}"
            cells[4] = shown(scores.gain(row, "base", OBEYED), OBEYED)
            cells[6:] = [shown(scores.gain(row, "base", c), c) for c in ("examiner", "judge")]
        if row not in ("base", "dpo") and scores.tested("dpo"):
            cells[5] = shown(scores.gain(row, "dpo", OBEYED), OBEYED)
        lines.append(f"| {' | '.join([row, *cells])} |")
    return lines


def filled(text: str, scores: Scores) -> str:
    """Replace what lies between `<!-- rows -->` and `<!-- end -->` by the table."""
    table = "\n".join(["<!-- rows -->", *rows_table(scores), "<!-- end -->"])
    return re.sub(r"<!-- rows -->\n.*?<!-- end -->", lambda _: table, text, flags=re.DOTALL)


def main() -> None:
    """Write the table into README.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, help="folder of a comparison's runs")
    output = parser.parse_args().output
    if output:
        files = sorted((output / "scores").glob("*.parquet"))
        write_table(SCORES, pa.concat_tables(map(read_table, files)))
    readme = HERE / "README.md"
    text = filled(readme.read_text(encoding="utf-8"), Scores(read_table(SCORES)))
    readme.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
