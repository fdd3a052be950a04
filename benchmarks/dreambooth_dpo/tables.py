"""Make every printed table from the committed scores, into README.md.

    python benchmarks/dreambooth_dpo/tables.py

Intervals are 95 % over subjects as clusters, of differences paired by subject, prompt and seed.
"""

import argparse
import statistics
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
from rules import LENGTH, PERSONALISED, ROWS, SCALES

from tastemaker.metrics.clusters import MeanInterval, mean_interval
from tastemaker.storage.files import read_json, write_text
from tastemaker.storage.parquet import read_table

HERE = Path(__file__).parent
SHARES = ("both", "recognised", "obeyed")
COLUMNS = (*SHARES, "likeness", "IS", "TS", "judge's IS", "judge's TS")
"""Printed, shares in per cent and cosines times 1000; the first is the headline."""
FRONTS = {
    "best LoRA scale": (PERSONALISED, *(f"{PERSONALISED}, LoRA x {each}" for each in SCALES)),
    "best length": (PERSONALISED, *(n for n, row in ROWS.items() if row.steps not in (0, LENGTH))),
}
"""Rows among which validation prompts choose, per subject: they cost drawing alone."""
BALANCED, ROUNDS = "angle 20 to 70", "angle 20 to 70, two rounds, half the images"
LOW, HIGH = "angle 0 to 45", "angle 45 to 90"
Contrast = tuple[str, str, str]
"""A row, the row that it is compared with, and a column: claimed is a difference above 0."""
CLAIMS: dict[str, tuple[Contrast, ...]] = {
    "the angle rule raises fidelity and adherence at once": (
        (BALANCED, PERSONALISED, "IS"),
        (BALANCED, PERSONALISED, "TS"),
    ),
    "the same by eyes that training never used": (
        (BALANCED, PERSONALISED, "recognised"),
        (BALANCED, PERSONALISED, "obeyed"),
    ),
    "it beats either metric alone": (
        (BALANCED, "fidelity alone", "both"),
        (BALANCED, "prompt alone", "both"),
    ),
    "it beats an equal-weight sum": ((BALANCED, "weighted, lambda .5", "both"),),
    "the window steers": ((LOW, HIGH, "IS"), (HIGH, LOW, "TS")),
    "two rounds at half the images beat one": ((ROUNDS, BALANCED, "both"),),
    "more images per prompt help": ((BALANCED, "angle 20 to 70, half the images", "both"),),
    "it beats what costs drawing alone": (
        (BALANCED, "best LoRA scale", "both"),
        (BALANCED, "best length", "both"),
    ),
}


Scores = dict[tuple[str, str], list[dict[str, Any]]]
"""Rows of the table by subject and row."""


def best_guidance(table: pa.Table, subject: str, row: str) -> float:
    """Return the scale of a row's highest merit on the validation prompts.

    Args:
        table: Validation images of the row and of the personalised model.
        subject: Whose.
        row: The row.

    Returns:
        The scale at which the sum of mean IS and mean TS is highest, each divided by its standard
        deviation over the personalised model's validation images.
    """
    return max(_merits(by_row(table, "validation"), subject, row))[1]


def by_row(table: pa.Table, part: str) -> Scores:
    """Group images of a part, `validation` or `test`, by subject and row."""
    found: Scores = {}
    for image in table.to_pylist():
        if image["part"] == part:
            found.setdefault((image["subject"], image["row"]), []).append(image)
    return found


def _merits(scores: Scores, subject: str, row: str) -> Iterator[tuple[float, float]]:
    """Yield merit and scale of a row's validation images, scale by scale."""
    units = {
        column: statistics.pstdev(image[column] for image in scores[subject, PERSONALISED])
        for column in ("IS", "TS")
    }
    drawn = scores[subject, row]
    for scale in sorted({image["guidance"] for image in drawn}):
        at = [image for image in drawn if image["guidance"] == scale]
        means = (statistics.fmean(each[c] for each in at) / unit for c, unit in units.items())
        yield sum(means), scale


def with_fronts(table: pa.Table) -> Scores:
    """Group test images by subject and row, and add the chosen row of each front."""
    test, validation = by_row(table, "test"), by_row(table, "validation")
    for subject in {subject for subject, _ in test}:
        for front, rows in FRONTS.items():
            if all((subject, row) in test for row in rows):
                merit = {row: max(_merits(validation, subject, row)) for row in rows}
                test[subject, front] = test[subject, max(rows, key=merit.__getitem__)]
    return test


def difference(scores: Scores, contrast: Contrast) -> MeanInterval | None:
    """Compare two rows over the subjects that have both; None with fewer than two."""
    first, second, column = contrast
    subjects = sorted(s for s, row in scores if row == first and (s, second) in scores)
    gains, clusters = [], []
    for subject in subjects:
        theirs = {(each["prompt"], each["seed"]): each for each in scores[subject, second]}
        for image in scores[subject, first]:
            gains.append(image[column] - theirs[image["prompt"], image["seed"]][column])
            clusters.append(subject)
    return mean_interval(gains, clusters) if len(subjects) > 1 else None


def verdict(found: Sequence[MeanInterval | None]) -> str:
    """Say what the intervals of a claim's differences say of it."""
    if None in found:
        return "not measured"
    if any(each.high < 0 for each in found if each):
        return "contradicted"
    return "shown" if all(each.low > 0 for each in found if each) else "not shown"


def claims(scores: Scores) -> str:
    """Write the table of the paper's claims."""
    lines = ["| claim | verdict | effect [95 % over subjects] |", "|---|---|---|"]
    for claim, contrasts in CLAIMS.items():
        found = [difference(scores, each) for each in contrasts]
        effects = (
            f"{column}, {first} less {second}: {_signed(each, column)}"
            for (first, second, column), each in zip(contrasts, found, strict=True)
            if each
        )
        lines.append(f"| {claim} | {verdict(found)} | {'; '.join(effects)} |")
    return "\n".join(lines)


def means(scores: Scores, costs: Sequence[dict[str, Any]]) -> str:
    """Write each row's means over subjects, guidance, pairs and CPU seconds."""
    head = ("row", "subjects", "guidance", *COLUMNS, "pairs", "CPU seconds")
    lines = [_cells(head), _cells("---" for _ in head)]
    for row in (*ROWS, *FRONTS):
        drawn = [images for (_, name), images in scores.items() if name == row]
        if not drawn:
            continue
        every = [image for images in drawn for image in images]
        scales = sorted({image["guidance"] for image in every})
        values = (_unit(c) * statistics.fmean(each[c] for each in every) for c in COLUMNS)
        spent = [each for each in costs if each["row"] == row]
        cost = [
            f"{statistics.fmean(each[key] for each in spent):.0f}" if spent else "0"
            for key in ("pairs", "seconds")
        ]
        shown = (row, str(len(drawn)), ", ".join(f"{each:g}" for each in scales))
        lines.append(_cells((*shown, *(f"{each:.1f}" for each in values), *cost)))
    return "\n".join(lines)


def gains(scores: Scores) -> str:
    """Write each row's differences to the personalised model."""
    lines = [_cells(("row", *COLUMNS)), _cells("---" for _ in ("row", *COLUMNS))]
    for row in (*ROWS, *FRONTS):
        found = [(difference(scores, (row, PERSONALISED, each)), each) for each in COLUMNS]
        if row != PERSONALISED and all(each for each, _ in found):
            lines.append(_cells((row, *(_signed(each, c) for each, c in found if each))))
    return "\n".join(lines)


def by_subject(scores: Scores) -> str:
    """Write the headline by subject: differences of its images to the personalised model's."""
    subjects = sorted({subject for subject, _ in scores})
    lines = [_cells(("row", *subjects)), _cells("---" for _ in ("row", *subjects))]
    headline = COLUMNS[0]

    def mean(subject: str, row: str) -> float:
        return 100 * statistics.fmean(each[headline] for each in scores[subject, row])

    for row in (*ROWS, *FRONTS):
        if any((subject, row) in scores for subject in subjects):
            cells = (f"{mean(s, row):.0f}" if (s, row) in scores else "" for s in subjects)
            lines.append(_cells((row, *cells)))
    return "\n".join(lines)


def filled(text: str, table: pa.Table, costs: Sequence[dict[str, Any]]) -> str:
    """Put the tables between their markers, `<!-- NAME -->` and `<!-- end of NAME -->`."""
    scores = with_fronts(table)
    makers: dict[str, Callable[[], str]] = {
        "claims": partial(claims, scores),
        "means": partial(means, scores, costs),
        "gains": partial(gains, scores),
        "subjects": partial(by_subject, scores),
    }
    for name, make in makers.items():
        start, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
        before, _, rest = text.partition(start)
        _, _, after = rest.partition(end)
        text = f"{before}{start}\n\n{make()}\n\n{end}{after}"
    return text


def _unit(column: str) -> int:
    return 100 if column in SHARES else 1000


def _signed(found: MeanInterval, column: str) -> str:
    mean, low, high = (_unit(column) * each for each in (found.mean, found.low, found.high))
    return f"{mean:+.1f} [{low:+.1f}, {high:+.1f}]"


def _cells(cells: Any) -> str:
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    """Write the tables."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    table, costs = read_table(HERE / "scores.parquet"), read_json(HERE / "costs.json")
    readme = HERE / "README.md"
    write_text(readme, filled(readme.read_text(encoding="utf-8"), table, costs))


if __name__ == "__main__":
    main()
