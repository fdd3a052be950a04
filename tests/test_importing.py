"""Compared images come in whole, keep people's verdicts, and can be relabelled."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tastemaker.config import load
from tastemaker.errors import TastemakerError
from tastemaker.images import decode
from tastemaker.importing import import_comparisons
from tastemaker.pair import pair
from tastemaker.recipes.runner import run
from tastemaker.records import PairSet, Pool
from tastemaker.score import score
from tastemaker.sections import ImportConfig, PairConfig, ScoreConfig
from test_resume import digests
from test_rooms import run_file  # noqa: F401

COLOURS = ("red", "green", "blue", "white", "black", "orange")


def picture(colour: str, size: tuple[int, int] = (24, 16), kind: str = "JPEG") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, format=kind)
    return buffer.getvalue()


def row(number: int, label: float, **changes: Any) -> dict[str, Any]:
    return {
        "caption": f"prompt {number % 2}",
        "jpg_0": picture(COLOURS[number % 6]),
        "jpg_1": picture(COLOURS[(number + 1) % 6]),
        "label_0": label,
        "label_1": 1 - label,
        "has_label": True,
        "model_0": "a",
        "model_1": "b",
        **changes,
    }


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def config(path: Path, **options: Any) -> ImportConfig:
    return ImportConfig(comparisons={"path": str(path)}, **options)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Seven comparisons in two files: two decided each way, a tie, one unlabelled, two broken."""
    write(tmp_path / "data" / "0.parquet", [row(0, 1.0), row(1, 0.0), row(2, 0.5)])
    broken = [row(4, 1.0, jpg_1=b"no picture"), row(5, 1.0, caption="  ")]
    rest = [row(3, 1.0, has_label=False), *broken, row(6, 1.0), row(7, 0.0)]
    write(tmp_path / "data" / "1.parquet", rest)
    return tmp_path / "data"


def test_verdicts_become_pairs(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pool = import_comparisons(config(source, shard_size=4), tmp_path / "pool")
    told = capsys.readouterr().out
    assert "imported 6 comparisons, left out 2" in told
    assert "1.parquet, row 1, image 1" in told
    assert "1.parquet, row 2: the prompt is empty" in told
    table = Pool(pool).scores()
    assert table.num_rows == 12
    assert table["human"].to_pylist() == [1, 0, 0, 1, 0.5, 0.5, 0.5, 0.5, 1, 0, 0, 1]
    pairs = pair(PairConfig(rule={"scorer": "human"}), pool, tmp_path / "pairs")
    rows = PairSet(pairs).table().to_pylist()
    # Ties and rows without a verdict are dropped; equal captions stay apart.
    assert [each["prompt"] for each in rows] == ["prompt 0", "prompt 1", "prompt 0", "prompt 1"]
    assert [each["chosen_id"][-1] for each in rows] == ["0", "1", "0", "1"]
    assert all(each["chosen_id"][:-2] == each["rejected_id"][:-2] for each in rows)


def test_any_scorer_relabels(source: Path, tmp_path: Path, tiny_clip: Path) -> None:
    pool = import_comparisons(config(source, limit=4), tmp_path / "pool")
    scorer = {"name": "clip", "label": "tiny", "model": str(tiny_clip)}
    score(ScoreConfig(scorers=(scorer,)), pool)
    pairs = pair(PairConfig(rule={"scorer": "tiny"}), pool, tmp_path / "pairs")
    table = Pool(pool).scores().to_pydict()
    tiny = dict(zip(table["candidate_id"], table["tiny"], strict=True))
    rows = PairSet(pairs).table().to_pylist()
    assert len(rows) == 4  # also the tie and the row without a verdict
    assert all(tiny[each["chosen_id"]] > tiny[each["rejected_id"]] for each in rows)


def test_size_crops_and_scales_without_loss(source: Path, tmp_path: Path) -> None:
    whole = import_comparisons(config(source, limit=1), tmp_path / "whole")
    small = import_comparisons(config(source, limit=1, size=8), tmp_path / "small")
    kept = Pool(whole).candidates().to_pylist()[0]["image"]["bytes"]
    assert kept == picture("red")
    scaled = Pool(small).candidates().to_pylist()[0]["image"]["bytes"]
    assert decode(scaled, "scaled").size == (8, 8)
    assert scaled[:4] == b"\x89PNG"


def test_interrupted_import_goes_on_to_the_same_bytes(source: Path, tmp_path: Path) -> None:
    whole = import_comparisons(config(source, shard_size=4), tmp_path / "whole")
    again = import_comparisons(config(source, shard_size=4), tmp_path / "again")
    for name in ("done.json", "candidates-00001.parquet", "scores/human/done.json"):
        (again / name).unlink()
    (again / "scores" / "human" / "scores-00002.parquet").unlink()
    import_comparisons(config(source, shard_size=4), again)
    assert digests(again) == digests(whole)


def test_a_changed_source_is_another_import(source: Path, tmp_path: Path) -> None:
    import_comparisons(config(source), tmp_path / "pool")
    write(source / "2.parquet", [row(8, 1.0)])
    with pytest.raises(TastemakerError, match="another configuration"):
        import_comparisons(config(source), tmp_path / "pool")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: folder / "nowhere", "nowhere does not exist"),
        (lambda folder: (folder / "empty").mkdir() or folder / "empty", "no .parquet file"),
        (lambda folder: write(folder / "x.parquet", [{"caption": "a"}]), "no column 'jpg_0'"),
        (lambda folder: write(folder / "x.parquet", [row(0, 0.3)]), "label_0 is 0.3"),
        (lambda folder: write(folder / "x.parquet", [row(0, 1.0, jpg_0=b"")]), "no usable"),
    ],
    ids=["missing", "empty folder", "columns", "label", "nothing usable"],
)
def test_bad_sources_are_named(make: Any, message: str, tmp_path: Path) -> None:
    path = make(tmp_path)
    with pytest.raises(TastemakerError, match=message):
        import_comparisons(config(path), tmp_path / "pool")


def test_torn_parquet_is_named(source: Path, tmp_path: Path) -> None:
    file = source / "1.parquet"
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(TastemakerError, match=r"1\.parquet is not a whole parquet file"):
        import_comparisons(config(source), tmp_path / "pool")


def test_recipe_dde_runs_from_comparisons(
    source: Path,
    run_file: Path,  # noqa: F811
) -> None:
    data = ("data.comparisons.path=" + str(source), "data.size=16", "generate=null", "score=null")
    options = ("recipe=dde", "pair.rule.scorer=human", "train.credit.name=dde")
    folder = run(load(str(run_file), (*data, *options)))
    assert "Credit of denoising steps" in folder.report_html.read_text(encoding="utf-8")
    assert PairSet(folder.pairs).table().num_rows == 4
    assert len(Pool(folder.candidates).scorers()) == 1


def test_a_run_has_one_source_of_candidates(source: Path, run_file: Path) -> None:  # noqa: F811
    with pytest.raises(TastemakerError, match="give one of the two"):
        load(str(run_file), ("data.comparisons.path=" + str(source),))
    with pytest.raises(TastemakerError, match="'score' is required"):
        load(str(run_file), ("score=null",))
