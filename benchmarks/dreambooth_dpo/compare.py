"""DreamBoothDPO's comparison on the embedded model: pair rules, rounds, and what costs nothing.

    python benchmarks/dreambooth_dpo/compare.py --output runs/dreambooth_dpo
    python benchmarks/dreambooth_dpo/tables.py

The first command trains, draws and scores, resumable at any kill, in an empty folder from the
committed scores; main rows of every subject come first. Two processes on one folder share the
subjects. With `--collect` it only gathers what is there. Either way it writes scores.parquet and
costs.json beside this file, of which the second makes every printed table.

Per subject: personalise with prior preservation, for three lengths; draw candidates for
48 prompts, choose pairs by every rule of `rules.py`, train with the same constants. Every row is
drawn at its own best guidance: the scale of the highest sum of IS and TS, each in its spread over
the personalised model's validation images, on prompts of validation.txt. Test prompts are others.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

sys.path.insert(0, str(Path(__file__).parents[1]))

from committed import Settings, commit, committed, grouped, settings, settle, share
from rules import ROWS
from stages import GUIDANCE, RUN, SETTINGS, SMALL, SMALL_ROWS, STEPS, VALIDATION, Subject
from subjects import FOLDER, SUBJECTS, TUNED

from tastemaker.config.loading import read_yaml, shipped_runs
from tastemaker.core.content_hash import folder_content
from tastemaker.storage.files import read_json, write_json
from tastemaker.storage.parquet import read_table, write_table

HERE = Path(__file__).parent
SCORES, COSTS = HERE / "scores.parquet", HERE / "costs.json"


def settings_of(small: bool) -> Settings:
    """What scores depend on."""
    rows = {
        name: {key: value for key, value in asdict(row).items() if key != "main"}
        for name, row in ROWS.items()
    }
    return settings(
        rows,
        run=read_yaml(shipped_runs()[RUN]),
        overrides=[*SETTINGS, *(SMALL if small else ())],
        steps=STEPS,
        guidance=GUIDANCE,
        validation=VALIDATION.read_text(encoding="utf-8"),
        subjects=folder_content(FOLDER),
    )


def collect(subjects: Sequence[Subject], current: Settings, scores: Path, costs: Path) -> None:
    """Gather what is measured: scores in one table, costs in one list."""
    files = [each.file(row) for each in subjects for row in ROWS if each.file(row).is_file()]
    commit(scores, pa.concat_tables([read_table(file) for file in files]), current)
    write_json(costs, [read_json(file.with_suffix(".json")) for file in files])


def restore(subjects: Sequence[Subject], table: pa.Table, costs: list[dict[str, Any]]) -> None:
    """Write what `collect` gathered as the files that `measured` looks for."""
    parts = grouped(table, ("subject", "row"))
    spent = {(cost["subject"], cost["row"]): cost for cost in costs}
    for subject in subjects:
        for row in ROWS:
            key, file = (subject.name, row), subject.file(row)
            if key in parts and not file.is_file():
                write_json(file.with_suffix(".json"), spent[key])
                write_table(file, parts[key])


def main() -> None:
    """Run what is missing, then gather the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--collect", action="store_true", help="gather alone, run nothing")
    parser.add_argument("--small", action="store_true", help="a trial on the tuned subject alone")
    options = parser.parse_args()
    root, small = options.output, options.small
    subjects = [Subject(root, name, small) for name in (TUNED if small else SUBJECTS)]
    current = settings_of(small)
    settle(root, current)
    if not options.collect:
        run(root, subjects, SMALL_ROWS if small else tuple(ROWS), current)
    if not small:
        collect(subjects, current, SCORES, COSTS)


def run(root: Path, subjects: Sequence[Subject], rows: Sequence[str], current: Settings) -> None:
    """Measure what is missing, main rows of every subject first, subjects side by side."""
    if (table := committed(SCORES, current)) is not None:
        restore(subjects, table, read_json(COSTS))
    for main_rows in (True, False):
        own = [name for name in rows if ROWS[name].main == main_rows]
        share(root, {each.name: partial(measure, each, own) for each in subjects})


def measure(subject: Subject, rows: Sequence[str]) -> None:
    """Measure some rows of a subject."""
    for name in rows:
        subject.measured(name)


if __name__ == "__main__":
    main()
