"""The comparison of losses: its rows are trainings of every loss; its table by hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pytest

from tastemaker.config.training import TrainConfig
from tastemaker.core.registry import LOSSES
from tastemaker.training.preference.terms import build_losses
from test_benchmarks import BENCHMARKS, alone, load

__all__ = ["alone"]

FOLDER = BENCHMARKS / "losses"


def test_every_loss_has_a_row_that_trains() -> None:
    compare = load(FOLDER / "compare.py")
    others = {"d3po"}  # of trajectories, with errors of another kind
    assert {row.loss for row in compare.ROWS.values()} == set(LOSSES.names()) - others
    for name, row in compare.ROWS.items():
        draws = None if name in compare.LIVE else 1
        for value in row.values:
            options = {"model": "nano", "reference_draws": draws, **row.settings(value, 0.5)}
            build_losses(TrainConfig.model_validate(options))
    scaled = compare.ROWS["gap_scaled"].settings(125, 0.5)
    assert scaled == {"loss": {"name": "gap_scaled", "unit": 0.5, "beta": 125}}
    assert compare.ROWS["sft"].settings(1e-3, 0.5)["learning_rate"] == 1e-3


def cell(
    row: str, value: float, split: str, scale: float, checker: float, obeyed: Sequence[int]
) -> pa.Table:
    """Two images per prompt, of one pool."""
    number = len(obeyed)
    who = {"row": row, "value": value, "pool": 0, "split": split, "guidance": scale}
    scores = dict.fromkeys(("checker", "examiner", "judge"), [float(checker)] * number)
    columns = {name: [each] * number for name, each in who.items()}
    places = {"number": list(range(number)), "prompt": [i // 2 for i in range(number)]}
    return pa.table({**columns, **places, **scores, "obeyed": pa.array(obeyed, pa.int8())})


def test_the_table_by_hand() -> None:
    """Prompts differ by 1 and 0: mean .5, stderr .5, t of one degree 12.706."""
    tables = load(FOLDER / "tables.py")
    cells = []
    for row, value, best, high in (
        ("base", 0.0, 3.0, 0),
        ("dpo", 125.0, 6.0, 1),
        ("dpo", 500.0, 1.5, 2),
        ("dpo", 2000.0, 1.5, 1),
    ):
        for scale in (1.5, 3.0, 6.0):
            cells.append(cell(row, value, "guidance", scale, high + (scale == best), [0, 0]))
        cells.append(cell(row, value, "validation", best, high, [0, 0]))
    cells.append(cell("base", 0.0, "test", 3.0, 1.0, [0, 0, 0, 1]))
    cells.append(cell("dpo", 500.0, "test", 1.5, 1.5, [1, 1, 0, 1]))
    scores = tables.opened(pa.concat_tables(cells))
    assert scores.chosen("dpo") == (tables.Policy("dpo", 500.0, 0), 1.5)
    assert scores.chosen("sft") is None
    base, dpo = tables.rows_table(scores)[2:]
    assert base == "| base |  | 3 | 1 | 25.0 % |  |  |  |  |"
    assert dpo.startswith("| dpo | beta 500 | 1.5 | 1 | 75.0 % | +50.0 [-585.3, +685.3] |  | ")
    assert dpo.endswith("| +0.50 [+0.50, +0.50] | +0.50 [+0.50, +0.50] |")
    text = "before\n<!-- rows -->\nold\n<!-- end -->\nafter"
    assert tables.with_tables(text, scores).splitlines()[-3] == dpo


def test_the_readme_is_that_of_the_committed_scores() -> None:
    tables = load(FOLDER / "tables.py")
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    if tables.SCORES.is_file():
        assert tables.with_tables(text, tables.opened(tables.SCORES)) == text
    else:
        assert "has not been run yet" in text


@pytest.mark.slow
def test_it_goes_on_from_committed_scores(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    compare, read = load(FOLDER / "compare.py"), load(BENCHMARKS / "committed.py").read

    class Two(compare.Losses):
        rows = ("base", "sft")

    def scored(comparison: Two, file: Path) -> tuple[pa.Table, set[str]]:
        comparison.commit(file)
        return read(file), {each.stem for each in comparison.root.glob("scores/*.parquet")}

    def measured() -> list[str]:
        lines = (line.split(" ") for line in capfd.readouterr().out.splitlines())
        return [line[1] for line in lines if len(line) == 2 and line[0].count(":") == 2]

    kept = tmp_path / "kept.parquet"
    whole, first, second = (Two(tmp_path / each, compare.SMOKE) for each in ("a", "b", "c"))
    whole.run(kept)
    assert len(measured()) == 10
    first.test("base")
    first.measure(compare.Policy("sft", 2e-4, 0), "guidance", 3.0)
    part, before = scored(first, kept)
    assert len(part) == 7
    measured()
    second.run(kept)
    again = measured()
    table, names = scored(second, tmp_path / "second.parquet")
    assert sorted(again) == sorted(names - before)
    assert table.equals(scored(whole, tmp_path / "whole.parquet")[0])
    # Two images of one test prompt; the search's constant is that of the whole table.
    assert len(table) == 12
    for row in ("base", "sft"):
        assert table.filter(pa.compute.equal(table["row"], row)).num_rows == 6
