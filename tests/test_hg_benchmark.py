"""The portrait comparison's numbers: by hand, against the library's, and as committed."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
import torch

from tastemaker.core.errors import TastemakerError
from tastemaker.metrics.kernel_distance import kernel_distance
from tastemaker.storage.files import write_json

FOLDER = Path(__file__).parents[1] / "benchmarks" / "hg_dpo"
NAMES = ("rows", "figures", "results", "claims", "tables")
CAPTIONS = [
    "a portrait of a man, grey background, dark hair, red clothes",
    "a portrait of a woman, grey background, light hair, red clothes",
]


@pytest.fixture
def hg(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Modules of the comparison, which import each other by bare names."""
    monkeypatch.syspath_prepend(str(FOLDER))
    yield SimpleNamespace(**{name: importlib.import_module(name) for name in NAMES})
    for name in NAMES:
        del sys.modules[name]


def images(score: float, images: int = 4, **changed: Any) -> dict[str, list[Any]]:
    """Columns of images of two captions in turn, all of one score, one of four attributes wrong."""
    features = torch.randn(images, 3, generator=torch.Generator().manual_seed(int(10 * score)))
    columns = {
        "photograph": list(range(images)),
        "caption": [CAPTIONS[place % 2] for place in range(images)],
        **{name: [score] * images for name in ("preference", "judge", "plain", "face")},
        **{name: [True] * images for name in ("gender", "background", "hair")},
        "clothes": [False] * images,
        "sharpness": [20.0] * images,
        "hue": [10.0] * images,
        "efficientnet": features.tolist(),
        "judge_features": features.tolist(),
    }
    return columns | changed


def written(hg: Any, folder: Path, found: list[tuple[Any, str, dict[str, list[Any]]]]) -> Any:
    """A comparison with these measured images; sizes are those of `SMALL`."""
    for model, part, columns in found:
        file = folder / f"{part}-{model.name}.parquet"
        hg.results.write(file, model, part, columns)
    results = hg.results.Results(hg.results.gather(folder))
    return hg.claims.Measured(results, hg.results.Choices(results.score, hg.rows.SMALL))


def test_kernel_distance_and_its_error_are_those_of_the_library(hg: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    drawn, real = torch.randn(2, 12, 5, generator=generator, dtype=torch.float64)
    captions = list("aabbbcccccdd")
    model = hg.figures.Images(
        {"caption": captions, "efficientnet": drawn.tolist()}, {"efficientnet": real}
    )
    found = hg.figures.distance([model], None)
    expected = kernel_distance(drawn, real, captions, captions)
    assert found.value == pytest.approx(1000 * expected.value)
    # Student's t with 3 degrees.
    assert found.high - found.value == pytest.approx(1000 * 3.182 * expected.stderr, rel=5e-3)
    assert hg.figures.distance([model], [model]) == (0, 0, 0)


def test_an_interval_covers_captions_and_seeds(hg: Any) -> None:
    a, b = (
        hg.figures.Images({"caption": list("aabb"), "judge": [score, score, score + 2, score + 2]})
        for score in (1.0, 2.0)
    )
    found = hg.figures.mean([a, b], None, hg.figures.column("judge"))
    # Captions: means 1.5 and 3.5, error 1; seeds: 2 and 3, error .5; t of 1 degree is 12.706.
    assert found.value == 2.5
    assert found.high - 2.5 == pytest.approx(12.706 * 1.25**0.5, rel=1e-4)
    assert hg.figures.mean([a, b], [a, b], hg.figures.column("judge")) == (0, 0, 0)


def test_everything_is_chosen_by_the_training_scorer_on_validation(hg: Any, tmp_path: Path) -> None:
    model = hg.results.Model
    naive = model("naive", 6, 1e-3, 500, 0, 2.0, 2.0)
    judged_best = images(2.0, judge=[9.0] * 4)
    measured = written(
        hg,
        tmp_path,
        [
            (model("base", guidance=1.0), "validation", judged_best),
            (model("base", guidance=2.0), "validation", images(3.0)),
            (naive, "validation", images(4.0)),
            (model("naive", 6, 1e-3, 500, 0, 1.0, 2.0), "validation", images(5.0)),
        ],
    )
    assert measured.choices.base == model("base", guidance=2.0)
    assert measured.choices.chosen("naive", 6) == model("naive", 6, 1e-3, 500, 0, 1.0, 2.0)
    assert measured.models("naive", 6) == []
    with pytest.raises(hg.results.NotMeasured):
        measured.choices.chosen("easy", 6)


def test_tables_hold_what_is_there_and_say_what_is_not(hg: Any, tmp_path: Path) -> None:
    model = hg.results.Model
    base, naive = model("base", guidance=2.0), model("naive", 6, 1e-3, 500, 0, 2.0, 2.0)
    low = [model("base", guidance=1.0), model("naive", 6, 1e-3, 500, 0, 1.0, 2.0)]
    photographs = [(model(name), "test", images(5.0)) for name in ("photographs",)]
    others = images(4.5)
    measured = written(
        hg,
        tmp_path,
        [
            *((each, "validation", images(1.0)) for each in low),
            *((each, "validation", images(2.0)) for each in (base, naive)),
            *photographs,
            (model("other photographs"), "test", others),
            (base, "test", images(2.0)),
            (naive, "test", images(3.0)),
        ],
    )
    texts = hg.tables.texts(measured)
    row = next(line for line in texts["table.md"].splitlines() if line.startswith("| naive"))
    assert row.startswith("| naive | 6 | 0.001, beta 500 | 2 | 1 | 1.00 [1.00, 1.00] | 100 ")
    assert " 75.0 [75.0, 75.0] | 100.0 [100.0, 100.0] " in row
    assert "| naive | 6 | 0.001, beta 500 | 2 | 2.000 | * |" in texts["search.md"]
    assert "| naive | 6 | 0.001, beta 500 | 1 | 1.000 |  |" in texts["search.md"]
    claims = hg.claims.as_table(measured)
    assert claims.count("not measured") == len(claims.splitlines()) - 3
    assert "| naive collapses | naive – base | 6 | distance | " in claims
    readme = hg.tables.with_claims(f"a\n{hg.tables.BEGIN}old\n{hg.tables.END}\nb\n", "new\n")
    assert readme == f"a\n{hg.tables.BEGIN}new\n{hg.tables.END}\nb\n"


@pytest.mark.parametrize(
    ("low", "high", "sign", "said"),
    [
        (-1, 1, 1, "not shown"),
        (0.1, 1, 1, "shown"),
        (0.1, 1, -1, "contradicted"),
        (-2, -1, -1, "shown"),
    ],
)
def test_a_verdict_follows_the_interval(
    hg: Any, low: float, high: float, sign: int, said: str
) -> None:
    assert hg.claims.verdict(hg.figures.Interval((low + high) / 2, low, high), sign) == said


def test_tables_are_those_of_the_committed_scores(hg: Any) -> None:
    if not hg.results.SCORES.is_file():
        pytest.skip("the comparison has not run yet")
    measured = hg.tables.opened(hg.results.SCORES, hg.rows.Size())
    for name, text in hg.tables.texts(measured).items():
        assert (FOLDER / name).read_text(encoding="utf-8") == text
    readme = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert hg.tables.with_claims(readme, hg.claims.as_table(measured)) == readme


def test_parquet_keeps_features_of_the_test_part_alone(hg: Any, tmp_path: Path) -> None:
    for part in ("validation", "test"):
        hg.results.write(tmp_path / f"{part}-a.parquet", hg.results.Model("a"), part, images(1.0))
    table: pa.Table = hg.results.gather(tmp_path)
    assert table["efficientnet"].null_count == 4
    assert len(table) == 8


def test_an_empty_folder_goes_on_from_the_committed_images(
    hg: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = {"naive": {"stages": ["naive"]}}
    current = {"common": {"items": 12}, "rows": rows}
    first, second = tmp_path / "first", tmp_path / "second"
    base, naive = hg.results.Model("base", guidance=1.0), hg.results.Model("naive", 6, 1e-3, 500)
    for model, part in ((base, "validation"), (base, "test"), (naive, "validation")):
        file = first / "measured" / f"{part}-{model.name}.parquet"
        hg.results.write(file, model, part, images(1.5))
    write_json(first / "settings.json", current)
    hg.results.keep(first, tmp_path / "scores.parquet")
    hg.results.go_on(second, tmp_path / "scores.parquet", current)
    names = sorted(each.name for each in (first / "measured").iterdir())
    assert sorted(each.name for each in (second / "measured").iterdir()) == names
    table = hg.results.gather(first / "measured")
    assert hg.results.gather(second / "measured").equals(table)

    third = {**current, "rows": {"naive": {"stages": ["easy"]}}}
    hg.results.go_on(tmp_path / "third", tmp_path / "scores.parquet", third)
    assert len(list((tmp_path / "third" / "measured").iterdir())) == 2
    assert "not taken: naive." in capsys.readouterr().out
    with pytest.raises(TastemakerError, match="scores of other settings"):
        hg.results.go_on(second, tmp_path / "scores.parquet", third)
