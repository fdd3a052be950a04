"""Table of README.md, computed from the scores of every image.

    python benchmarks/losses/tables.py                        # from the committed scores.parquet
    python benchmarks/losses/tables.py --output runs/losses   # gathers a comparison's scores first

Rows that are missing are left out, and a row is compared on the pools that it has.
"""

from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
from compare import ROWS, SCORES, SIZES, Losses, Policy, tried
from comparison import options
from gains import OBEYED, Scores, filled, header, refill, shown

from tastemaker.metrics.clusters import MeanInterval, mean_interval

README = Path(__file__).parent / "README.md"


def opened(table: pa.Table | Path) -> Scores:
    """Read scores."""
    return Scores(table, Policy, tried)


def gain(scores: Scores, row: str, other: str, column: str) -> MeanInterval:
    """Return the mean paired difference of two rows' test images, prompts as clusters."""
    gains, tested = scores.gain(row, other, column), scores.tested(row)
    clusters = [(pool, prompt) for pool in gains for prompt in tested[pool]["prompt"].tolist()]
    return mean_interval(np.concatenate([*gains.values()]).tolist(), clusters)


def rows_table(scores: Scores) -> list[str]:
    """The rows on test prompts: gains over the base, and over `dpo`."""
    titles = ("loss", "constant", "guidance", "pools", "obeyed", "points over the base")
    lines = header(*titles, "points over dpo", "examiner over the base", "judge over the base")
    for row in ("base", *ROWS):
        tested = scores.tested(row)
        if not tested:
            continue
        policy, scale = scores.chosen(row)
        share = 100 * np.concatenate([cell[OBEYED] for cell in tested.values()]).mean()
        cells = ["", f"{scale:g}", str(len(tested)), f"{share:.1f} %", "", "", "", ""]
        if row != "base":
            cells[0] = f"{ROWS[row].constant.removeprefix('.')} {policy.value:g}"
            cells[4] = shown(gain(scores, row, "base", OBEYED), OBEYED)
            cells[6:] = [shown(gain(scores, row, "base", c), c) for c in ("examiner", "judge")]
        if row not in ("base", "dpo") and scores.tested("dpo"):
            cells[5] = shown(gain(scores, row, "dpo", OBEYED), OBEYED)
        lines.append(f"| {' | '.join([row, *cells])} |")
    return lines


def with_tables(text: str, scores: Scores) -> str:
    """Fill in the table of a page."""
    return filled(text, {"rows": partial(rows_table, scores)})


def main() -> None:
    """Write the table into README.md."""
    if output := options(__doc__, smoke=False).output:
        Losses(output, SIZES).commit(SCORES)
    scores = opened(SCORES)
    refill(README, partial(with_tables, scores=scores))


if __name__ == "__main__":
    main()
