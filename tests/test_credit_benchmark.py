"""The comparison of credit schemes: D3PO on its own trajectories, LAN over uniform, distances."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from tastemaker.storage.files import read_json
from test_benchmarks import BENCHMARKS, alone, load

__all__ = ["alone"]

FOLDER = BENCHMARKS / "credit"


@pytest.mark.slow
def test_rows_of_trajectories_and_of_lan_go_on_elsewhere(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    compare, committed = load(FOLDER / "compare.py"), load(BENCHMARKS / "committed.py")

    class Few(compare.Credit):
        rows = (("v", "base"), ("v", "uniform, LAN"), ("noise", "d3po"), ("v", "300-400"))

    def scored(comparison: Few) -> pa.Table:
        comparison.commit(tmp_path / f"{comparison.root.name}.parquet")
        return committed.read(tmp_path / f"{comparison.root.name}.parquet")

    first, second = (Few(tmp_path / each, compare.SMOKE) for each in ("first", "second"))
    first.run(tmp_path / "none.parquet")
    table = scored(first)
    policies = {place.name for place in (first.root / "policies").iterdir() if place.is_dir()}
    # LAN draws with uniform's policies, on which no other row trained here.
    assert policies == {
        *(f"v-uniform-31-{pool}" for pool in (0, 1)),
        *(f"noise-d3po-0.1-{pool}" for pool in (0, 1)),
        "v-300-400-31-0",
    }
    pairs = first.pairs_of(compare.Policy("noise", "d3po", 0.1, 1))
    drawn = read_json(pairs.parent / "candidates" / "artifact.json")["config"]
    assert drawn["trajectories"]
    assert drawn["model"] == str(first.root / "twin" / "twin")
    lan = read_json(first.root / "twin" / "distilled.json")
    assert lan["mean_squared_difference"] > 0
    distance = {scheme: mean(table, scheme) for scheme in ("base", "uniform", "uniform, LAN")}
    assert distance["base"] == 0
    assert distance["uniform, LAN"] > 0
    capfd.readouterr()

    # Of the first rows alone, in an empty folder: a last row is missing, and the base's images.
    lacking = table.filter(pc.not_equal(table["scheme"], "300-400"))
    settings = second.settings
    committed.commit(tmp_path / "kept.parquet", lacking, settings)
    second.run(tmp_path / "kept.parquet")
    lines = [line.split(" ") for line in capfd.readouterr().out.splitlines()]
    again = [line[1] for line in lines if len(line) == 2 and line[0].count(":") == 2]
    assert len(again) == 1
    assert again[0].startswith("v-300-400-31-0-test")
    assert scored(second).equals(table)


def mean(table: pa.Table, scheme: str) -> float:
    """Mean distance of a scheme's images."""
    return float(np.mean(table.filter(pc.equal(table["scheme"], scheme))["distance"].to_numpy()))
