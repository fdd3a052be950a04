"""One changed option of a finished run: what depends on it is made again, and nothing is lost."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import yaml

from conftest import write_run
from tastemaker.cli import main
from tastemaker.config.loading import load
from tastemaker.core.errors import TastemakerError
from tastemaker.recipes.run import run
from tastemaker.storage.files import read_json, read_json_lines

LORA = "pytorch_lora_weights.safetensors"
ARTIFACTS = ("candidates", "pairs", "policy", "evaluation/base", "evaluation/policy")
TRAINED = {"policy", "evaluation/policy"}
DRAWN = {"evaluation/base", "evaluation/policy"}
FOLDER = Path("runs/small")


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, tiny_clip: Path) -> Path:
    """A run that was made in its file's folder."""
    file = write_run(tmp_path_factory.mktemp("run"), tiny_model, tiny_clip)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(file.parent)
        run(load(str(file), ("output=runs",)))
    return file


@pytest.fixture(autouse=True)
def here(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy of the finished run, times of its files included."""
    shutil.copytree(file.parent / "runs", tmp_path / "runs")
    monkeypatch.chdir(tmp_path)


def rerun(file: Path, *overrides: str) -> set[str]:
    """Run again with other options; the artifacts in which a file was made anew."""
    before = {name: stamps(FOLDER / name) for name in ARTIFACTS}
    run(load(str(file), ("output=runs", *overrides)))
    return {name for name in ARTIFACTS if stamps(FOLDER / name) != before[name]}


def stamps(folder: Path) -> dict[str, int]:
    """When each parquet, LoRA and JSON file of an artifact was written."""
    kinds = {".parquet", ".safetensors", ".json"}
    files = (file for file in folder.rglob("*") if file.suffix in kinds)
    return {file.relative_to(folder).as_posix(): file.stat().st_mtime_ns for file in files}


def scorers(file: Path, section: str) -> str:
    """An override that adds a scorer to a section's."""
    given = yaml.safe_load(file.read_text())[section]["scorers"]
    return f"{section}.scorers={yaml.safe_dump([*given, 'sharpness'], default_flow_style=True)}"


def test_a_finished_run_is_passed_over_without_the_libraries(file: Path) -> None:
    heavy = {"torch", "diffusers", "transformers", "pandas", "numpy", "pyarrow"}
    code = (
        "import sys; from tastemaker.cli import main; status = main(sys.argv[1:]);"
        f"print(status, sorted({heavy} & {{*sys.modules}}))"
    )
    words = [sys.executable, "-c", code, "run", str(file), "output=runs"]
    said = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    assert said.splitlines()[-1] == "0 []"


def test_a_page_is_made_again_where_a_file_is_newer(file: Path) -> None:
    page = FOLDER / "report.html"
    written, content = page.stat().st_mtime_ns, page.read_bytes()
    assert rerun(file) == set()
    assert page.stat().st_mtime_ns == written
    (FOLDER / "policy" / "metrics.jsonl").touch()
    assert rerun(file) == set()
    assert page.stat().st_mtime_ns > written
    assert page.read_bytes() == content


@pytest.mark.slow
def test_what_depends_on_an_option_is_made_again_and_nothing_else(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report, policy = FOLDER / "report.json", FOLDER / "policy" / LORA
    first, trained = report.read_text(), policy.read_bytes()
    assert rerun(file, "report.strips=2") == set()
    capsys.readouterr()
    assert rerun(file, "train.loss.beta=1000") == TRAINED
    (kept,) = (FOLDER / ".artifacts").glob("policy-*")
    assert (kept / LORA).read_bytes() == trained
    assert "encode" not in capsys.readouterr().err, "encodings of the same pairs are copied"
    assert rerun(file, "evaluate.num_images=2") == {*DRAWN, "policy"}, "beta was set back"
    assert policy.read_bytes() == trained
    assert rerun(file, "evaluate.num_images=2", "pair.filters.min_score={tiny: -9}") == {
        "pairs",
        "policy",
    }, "the same pairs by another rule give the same model, which is drawn already"
    assert rerun(file) == {"pairs", "policy", *DRAWN}, "all set back: all come back"
    assert report.read_text() == first
    capsys.readouterr()
    main(["show", "runs/small"])
    listed = capsys.readouterr().out
    assert "  candidates: generate, scored by tiny\n" in listed
    assert re.search(r"policy-\w{16}: train, loss.beta: 1000.0 there, \d+.0 now\n", listed)
    assert re.search(r"run-\w{16}: report, train.loss.beta: 1000.0 there, \d+.0 now\n", listed)


def test_a_scorer_that_is_added_scores_alone(file: Path) -> None:
    """Pairs depend on the scorers that their rule names, and not on others in the pool."""
    before, images = stamps(FOLDER / "candidates"), stamps(FOLDER / "evaluation")
    added = scorers(file, "score")
    assert rerun(file, added) == {"candidates"}
    after = stamps(FOLDER / "candidates")
    assert after.items() > before.items()
    assert all(name.startswith("scores/sharpness/") for name in after.keys() - before.keys())
    rerun(file, added, scorers(file, "evaluate"))
    assert stamps(FOLDER / "evaluation").items() > images.items()
    judged = read_json(FOLDER / "report.json")["models"]["policy"]["scores"]
    assert set(judged) == {"tiny", "sharpness"}


@pytest.mark.slow
def test_raised_steps_go_on_from_the_last_checkpoint(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To 4 and on to 6 is to 6 at once: the same model and metrics, byte for byte."""
    from tastemaker.training.trainer import Trainer

    step: Any = Trainer._step
    taken: list[int] = []

    def counted(self: Trainer[Any, Any], batches: Iterable[Any]) -> dict[str, float]:
        taken.append(self.done)
        row: dict[str, float] = step(self, batches)
        return row

    monkeypatch.setattr(Trainer, "_step", counted)
    assert rerun(file, "train.max_steps=6") == TRAINED
    assert taken == [4, 5]
    policy = FOLDER / "policy"
    raised = {name: (policy / name).read_bytes() for name in (LORA, "metrics.jsonl")}
    shutil.rmtree("runs/small/.artifacts")
    shutil.rmtree(policy)
    rerun(file, "train.max_steps=6")
    assert taken == [4, 5, *range(6)]
    assert raised == {name: (policy / name).read_bytes() for name in raised}
    assert rerun(file, "train.lr_scheduler=linear", "train.max_steps=4") == TRAINED
    assert rerun(file, "train.lr_scheduler=linear", "train.max_steps=5") == TRAINED
    rates = [row["learning_rate"] for row in read_json_lines(policy / "metrics.jsonl")]
    assert rates == pytest.approx([1e-3 * left / 5 for left in range(5, 0, -1)])


def test_another_recipe_is_refused(file: Path) -> None:
    before = stamps(FOLDER)
    with pytest.raises(TastemakerError, match="recipe: 'diffusion_dpo' there, 'dde' now.*name="):
        rerun(file, "recipe=dde")
    assert stamps(FOLDER) == before
