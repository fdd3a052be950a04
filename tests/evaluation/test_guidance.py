"""Each model is drawn at its own best guidance, which prompts that do not judge decide."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from tastemaker.config.evaluation import EvaluateConfig
from tastemaker.config.sections import ReportConfig
from tastemaker.core.errors import TastemakerError
from tastemaker.evaluation.comparison import compare
from tastemaker.evaluation.evaluate import evaluate
from tastemaker.evaluation.guidance import best_scale, edge_warning
from tastemaker.evaluation.report_text import summary
from tastemaker.metrics.clusters import mean_and_stderr
from tastemaker.reporting.report import report
from tastemaker.storage.parquet import read_table
from tastemaker.storage.pool import Pool
from tastemaker.storage.results import read_report
from tastemaker.storage.run_dir import RunDir


def options(folder: Path, **search: Any) -> dict[str, Any]:
    """Options of nano against itself with a search by sharpness, judged by `nano_judge`."""
    for name, prompts in {"test": "a fish\na fox\n", "validation": "a snail\na kite\n"}.items():
        (folder / f"{name}.txt").write_text(prompts, encoding="utf-8")
    return {
        "base": "nano",
        "prompts": str(folder / "test.txt"),
        "num_images": 2,
        "num_inference_steps": 1,
        "device": "cpu",
        "scorers": ["sharpness", "nano_judge"],
        "judge": "nano_judge",
        "features": ["nano_judge"],
        "metrics": ["diversity"],
        "guidance_search": {
            "guidance_scales": [2.0, 4.0],
            "prompts": str(folder / "validation.txt"),
            "num_images": 2,
            "scorer": "sharpness",
            **search,
        },
    }


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], RunDir]:
    """A finished evaluation with a search, laid out as a run is."""
    run = RunDir(tmp_path_factory.mktemp("searched"))
    given = options(run.folder)
    config = EvaluateConfig.model_validate(given)
    evaluate(config, {"policy": "nano"}, run.evaluation, run.report_json)
    return given, run


EXAMINED = {"name": "nano_examiner", "obeyed": True}


def search_pools(run: RunDir, model: str) -> list[Pool]:
    return [Pool(folder) for folder in sorted((run.evaluation / "guidance").glob(f"{model}-*"))]


def test_the_best_mean_on_validation_prompts_draws(
    searched: tuple[dict[str, Any], RunDir],
) -> None:
    _, run = searched
    held = read_report(run.report_json)
    assert held["guidance_search"] == {"scorer": "sharpness", "prompts": 2}
    for name, model in held["models"].items():
        pools = search_pools(run, name)
        assert [point["guidance_scale"] for point in model["guidance_search"]] == [2.0, 4.0]
        for point, pool in zip(model["guidance_search"], pools, strict=True):
            table = pool.scores()
            assert set(table["prompt"].to_pylist()) == {"a snail", "a kite"}
            scores, ids = (table[key].to_pylist() for key in ("sharpness", "prompt_id"))
            assert (point["mean"], point["stderr"]) == mean_and_stderr(scores, ids)
            assert point["diversity"]["nano_judge"]["images"] == 4
        best = best_scale(model["guidance_search"])
        assert model["guidance_scale"] == best
        drawn = read_table(run.folder / "scores.parquet")
        scales = zip(drawn["model"].to_pylist(), drawn["guidance_scale"].to_pylist(), strict=True)
        assert {scale for of, scale in scales if of == name} == {best}
    # The policy is the base itself.
    policy = held["models"]["policy"]["diversity"]["nano_judge"]
    assert [policy[f"relative_{end}"] for end in ("difference", "low", "high")] == [0.0] * 3


def test_a_scale_after_another_draws_what_it_draws_alone(
    searched: tuple[dict[str, Any], RunDir], tmp_path: Path
) -> None:
    given, run = searched
    prompts = given["guidance_search"]["prompts"]
    alone = given | {"prompts": prompts, "guidance_search": None, "guidance_scale": 4.0}
    evaluate(EvaluateConfig.model_validate(alone), {}, tmp_path / "pools", tmp_path / "report.json")
    expected = Pool(tmp_path / "pools" / "base").candidates(("image",))
    assert search_pools(run, "base")[1].candidates(("image",)).equals(expected)


def test_scores_alone_give_what_the_report_says_of_them(
    searched: tuple[dict[str, Any], RunDir],
) -> None:
    _, run = searched
    held, again = read_report(run.report_json), compare(run.folder / "scores.parquet")
    for name, model in again["models"].items():
        assert {key: held["models"][name][key] for key in model} == model


def test_other_options_do_not_search_again(
    searched: tuple[dict[str, Any], RunDir], tmp_path: Path
) -> None:
    given, run = searched
    shutil.copytree(run.evaluation / "guidance", tmp_path / "guidance")
    files = sorted((tmp_path / "guidance").rglob("*.parquet"))
    before = [file.stat().st_mtime_ns for file in files]
    config = EvaluateConfig.model_validate({**given, "num_images": 3, "metrics": []})
    evaluate(config, {"policy": "nano"}, tmp_path, tmp_path / "report.json")
    assert sorted((tmp_path / "guidance").rglob("*.parquet")) == files
    assert [file.stat().st_mtime_ns for file in files] == before
    model = "policy"
    again, held = (read_report(folder / "report.json") for folder in (tmp_path, run.folder))
    assert again["models"][model]["guidance_search"] == held["models"][model]["guidance_search"]


def test_search_on_page_and_in_summary(searched: tuple[dict[str, Any], RunDir]) -> None:
    _, run = searched
    page = report(ReportConfig(), run).read_text(encoding="utf-8")
    (section,) = (each for each in page.split("<section") if each.startswith(' id="front"'))
    assert "diversity in nano_judge" in section
    assert "is at the edge of the grid" in page
    assert "its best of 2, 4 by sharpness on 2 other prompts" in summary(run.report_json)


def test_edge_of_the_grid_by_hand() -> None:
    def found(*means: float) -> list[dict[str, Any]]:
        scales = (1.5, 2.0, 3.0)
        return [
            {"guidance_scale": scale, "mean": mean}
            for scale, mean in zip(scales, means, strict=True)
        ]

    assert best_scale(found(0.1, 0.3, 0.3)) == 2.0
    assert edge_warning("policy", found(0.1, 0.3, 0.2)) is None
    for means in ((0.3, 0.2, 0.1), (0.1, 0.2, 0.3)):
        assert "of policy" in str(edge_warning("policy", found(*means)))
    off = [{**point, "guidance_scale": point["guidance_scale"] - 0.5} for point in found(3, 2, 1)]
    assert edge_warning("policy", off) is None  # 1 is no guidance: there is nothing below


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"guidance_search": {"scorer": "nano_judge"}},
            "'nano_judge' is of the network that judges, 'nano_judge'",
        ),
        ({"guidance_search": {"scorer": "sharpnes"}}, "Did you mean sharpness"),
        ({"guidance_search": {"guidance_scales": [2.0]}}, "at least 2 items"),
        ({"guidance_search": {"guidance_scales": []}}, "at least 2 items"),
        ({"guidance_search": {"guidance_scales": [2, 3, 2.0]}}, "has a scale twice"),
        ({"judge": None}, "name the judge"),
        (
            {"scorers": ["sharpness", {"name": "sharpness", "label": "other"}], "judge": "other"},
            "'sharpness' is of the network that judges, 'other'",
        ),
        (
            {
                "scorers": ["nano_examiner", {**EXAMINED, "label": "obeyed"}],
                "judge": "obeyed",
                "guidance_search": {"scorer": "nano_examiner"},
            },
            "'nano_examiner' is of the network that judges, 'obeyed'",
        ),
        ({"num_images": 1}, "diversity needs num_images of 2 or more"),
        ({"features": []}, "diversity needs features"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    given = options(tmp_path)
    search = {**given["guidance_search"], **change.pop("guidance_search", {})}
    with pytest.raises(ValidationError, match=words):
        EvaluateConfig.model_validate({**given, **change, "guidance_search": search})


def test_prompts_that_judge_are_refused_before_drawing(tmp_path: Path) -> None:
    given = options(tmp_path)
    (tmp_path / "validation.txt").write_text("a snail\nA  FOX.\n", encoding="utf-8")
    config = EvaluateConfig.model_validate(given)
    with pytest.raises(TastemakerError, match=r"1 of them are evaluation prompts too \('a fox'\)"):
        evaluate(config, {"policy": "nano"}, tmp_path / "out", tmp_path / "report.json")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["test.txt", "validation.txt"]
