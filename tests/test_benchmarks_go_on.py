"""Comparisons go on from committed scores of equal settings, and processes share their rows."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from tastemaker.core.errors import TastemakerError
from tastemaker.storage.parquet import read_table, write_table
from test_benchmarks import BENCHMARKS, alone, load

__all__ = ["alone"]

SHARING = """
import sys, time
from functools import partial
from pathlib import Path
from committed import share

root, me = Path(sys.argv[1]), sys.argv[2]

def piece(name):
    file = root / f"{name}.txt"
    if file.exists():
        return
    (root / f"begun-{name}-{me}").touch()
    end = time.monotonic() + 60
    # The first piece of each is not done before the other process has one too.
    while len(list(root.glob("begun-*"))) < 2 and time.monotonic() < end:
        time.sleep(0.05)
    file.write_text(me)

share(root, {name: partial(piece, name) for name in ("a", "b", "c, d", "e")})
assert all((root / f"{name}.txt").exists() for name in ("a", "b", "c, d", "e"))
"""


def test_rows_of_equal_settings_are_taken(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    committed = load(BENCHMARKS / "committed.py")
    settings = committed.settings({"a": {"beta": 1}, "b": {"beta": 2}}, sizes=(3, 4))
    file, table = tmp_path / "scores.parquet", pa.table({"row": ["base", "a", "b"], "x": [1, 2, 3]})
    assert committed.committed(file, settings) is None
    committed.commit(file, table, settings)
    assert committed.committed(file, settings).equals(table, check_metadata=True)
    assert capsys.readouterr().out == ""

    more = committed.settings({"a": {"beta": 1}, "b": {"beta": 2}, "c": {}}, sizes=(3, 4))
    assert committed.committed(file, more).equals(table)
    other = committed.settings({"a": {"beta": 1}, "b": {"beta": 5}}, sizes=(3, 4))
    assert committed.committed(file, other)["row"].to_pylist() == ["base", "a"]
    assert "rows of other settings are not taken: b." in capsys.readouterr().out
    for sizes, weights in (((3, 5), committed.WEIGHTS), ((3, 4), tmp_path)):
        changed = committed.settings({"a": {"beta": 1}}, weights, sizes=sizes)
        assert committed.committed(file, changed) is None
        said = capsys.readouterr().out
        assert "none of it is taken" in said
        assert ("sizes" if sizes == (3, 5) else "weights") in said
    write_table(file, table)
    assert committed.committed(file, settings) is None
    assert "none of it is taken" in capsys.readouterr().out
    assert read_table(file).schema.metadata is None


def test_a_folder_keeps_its_settings(tmp_path: Path) -> None:
    committed = load(BENCHMARKS / "committed.py")
    root = tmp_path / "runs"
    committed.settle(root, committed.settings({"a": 1}, steps=2))
    committed.settle(root, committed.settings({"a": 1, "b": 2}, steps=2))
    committed.settle(root, committed.settings({"a": 1}, steps=2))
    with pytest.raises(TastemakerError, match=r"rows.b: 2 there, 3 now"):
        committed.settle(root, committed.settings({"b": 3}, steps=2))
    with pytest.raises(TastemakerError, match=r"common.steps: 2 there, 4 now"):
        committed.settle(root, committed.settings({"a": 1}, steps=4))


def test_two_processes_share_the_rows(tmp_path: Path) -> None:
    root = tmp_path / "runs"
    root.mkdir()
    path = os.pathsep.join([str(BENCHMARKS), *sys.path])
    environment = {**os.environ, "PYTHONPATH": path}
    commands = ([sys.executable, "-c", SHARING, str(root), name] for name in ("first", "second"))
    running = [subprocess.Popen(each, env=environment) for each in commands]
    assert [each.wait(120) for each in running] == [0, 0]
    began = sorted(each.name.removeprefix("begun-") for each in root.glob("begun-*"))
    # Each piece was done once, and both processes did some.
    assert [name.rpartition("-")[0] for name in began] == ["a", "b", "c, d", "e"]
    assert {name.rpartition("-")[2] for name in began} == {"first", "second"}
