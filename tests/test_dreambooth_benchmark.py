"""DreamBoothDPO's comparison: choice of guidance, differences, verdicts, tables of the scores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tastemaker.metrics.clusters import MeanInterval
from tastemaker.storage.files import read_json, write_json
from tastemaker.storage.parquet import read_table, write_table
from test_benchmarks import BENCHMARKS, alone, load

__all__ = ["alone"]

FOLDER = BENCHMARKS / "dreambooth_dpo"


def drawn(subject: str, row: str, part: str, guidance: float, **scores: float) -> dict[str, Any]:
    columns = ("IS", "TS", "recognised", "obeyed", "both", "likeness", "judge's IS", "judge's TS")
    keys = {"subject": subject, "row": row, "part": part, "guidance": guidance}
    return {**keys, "prompt": "a", "seed": 0, **dict.fromkeys(columns, 0.0), **scores}


def test_guidance_weighs_both_axes_in_the_spread_of_the_personalised_model() -> None:
    tables = load(FOLDER / "tables.py")
    rows = [
        # Deviations .1 and .5.
        drawn("dog", "personalised", "validation", 1.0, IS=0.0, TS=0.0),
        drawn("dog", "personalised", "validation", 1.0, IS=0.2, TS=1.0),
        drawn("dog", "other", "validation", 1.0, IS=0.1, TS=0.5),  # 1 + 1
        drawn("dog", "other", "validation", 2.0, IS=0.3, TS=0.0),  # 3 + 0
        drawn("dog", "other", "validation", 3.0, IS=0.0, TS=1.0),  # 0 + 2
    ]
    table = pa.Table.from_pylist(rows)
    assert tables.best_guidance(table, "dog", "other") == 2.0


def test_differences_take_subjects_as_clusters() -> None:
    tables = load(FOLDER / "tables.py")
    scores = {
        (subject, row): [drawn(subject, row, "test", 1.0, both=value)]
        for subject, values in {"dog": (0.5, 0.0), "ball": (1.0, 0.0)}.items()
        for row, value in zip(("policy", "personalised"), values, strict=True)
    }
    found = tables.difference(scores, ("policy", "personalised", "both"))
    assert (found.mean, found.stderr) == (0.75, 0.25)
    assert found.high == pytest.approx(0.75 + 12.706 * 0.25, abs=1e-3)  # one degree of freedom
    assert tables.difference(scores, ("policy", "nano", "both")) is None


def test_verdicts() -> None:
    verdict = load(FOLDER / "tables.py").verdict
    up, down, unclear = (MeanInterval(mean, 1.0, mean - 2, mean + 2) for mean in (3.0, -3.0, 1.0))
    assert verdict([up, up]) == "shown"
    assert verdict([up, unclear]) == "not shown"
    assert verdict([up, down]) == "contradicted"
    assert verdict([up, None]) == "not measured"


def test_tables_are_those_of_the_scores() -> None:
    tables = load(FOLDER / "tables.py")
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    if (FOLDER / "scores.parquet").is_file():
        table, costs = read_table(FOLDER / "scores.parquet"), read_json(FOLDER / "costs.json")
        assert tables.filled(text, table, costs) == text
    rows = [
        drawn(subject, row, part, 2.0, IS=gain, TS=gain, both=gain)
        for subject in ("dog", "ball")
        for row, gain in (("personalised", 0.0), ("angle 20 to 70", 0.25))
        for part in ("validation", "test")
    ]
    costs = [{"row": "angle 20 to 70", "pairs": 9, "seconds": 70.4}]
    once = tables.filled(text, pa.Table.from_pylist(rows), costs)
    assert "| IS, angle 20 to 70 less personalised: +250.0 [+250.0, +250.0]; TS" in once
    means = "25.0 | 0.0 | 0.0 | 0.0 | 250.0 | 250.0 | 0.0 | 0.0"
    assert f"| angle 20 to 70 | 2 | 2 | {means} | 9 | 70 |" in once
    assert tables.filled(once, pa.Table.from_pylist(rows), costs) == once


def test_an_empty_folder_goes_on_from_the_committed_scores(tmp_path: Path) -> None:
    compare = load(FOLDER / "compare.py")
    current = compare.settings_of(small=False)
    assert set(current["rows"]) == set(compare.ROWS)
    assert current["common"]["run"]["recipe"] == "dreambooth_dpo"
    first, second = (
        [compare.Subject(tmp_path / each, name) for name in ("house", "ball")]
        for each in ("first", "second")
    )
    done = [(first[0], "personalised"), (first[0], "angle 20 to 70"), (first[1], "personalised")]
    for number, (subject, row) in enumerate(done):
        parts = ("validation", "test")
        images = [drawn(subject.name, row, part, 2.0, IS=number / 4) for part in parts]
        write_table(subject.file(row), pa.Table.from_pylist(images))
        cost = {"subject": subject.name, "row": row, "seconds": 1.5 * number, "pairs": number}
        write_json(subject.file(row).with_suffix(".json"), cost)
    scores, costs = tmp_path / "scores.parquet", tmp_path / "costs.json"
    compare.collect(first, current, scores, costs)
    table, spent = read_table(scores), read_json(costs)
    assert [cost["seconds"] for cost in spent] == [0, 1.5, 3.0]

    compare.restore(second, table, spent)
    for subject, row in done:
        other = next(each for each in second if each.name == subject.name)
        assert read_table(other.file(row)).equals(read_table(subject.file(row)))
        other.measured(row)  # nothing is drawn, for which there would be no model
    assert len([*(tmp_path / "second").rglob("*")]) == 4 + 2 * len(done)
    compare.collect(second, current, scores, costs)
    assert read_table(scores).equals(table)
    assert read_json(costs) == spent
