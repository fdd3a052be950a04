"""DreamBoothDPO's comparison: choice of guidance, differences, verdicts, tables of the scores."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from tastemaker.metrics.clusters import MeanInterval
from tastemaker.storage.files import read_json
from tastemaker.storage.parquet import read_table
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
