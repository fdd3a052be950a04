"""What an evaluation says of scored pools: clustered errors, paired differences, no silent gaps."""

from __future__ import annotations

import math
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
from PIL import Image, ImageStat

from tastemaker.config.evaluation import EvaluateConfig
from tastemaker.config.sections import ReportConfig
from tastemaker.core.errors import TastemakerError
from tastemaker.core.registry import SCORERS
from tastemaker.evaluation.comparison import compare, score_table
from tastemaker.evaluation.evaluate import evaluate
from tastemaker.evaluation.report_text import summary
from tastemaker.metrics.features import feature_network
from tastemaker.metrics.inception_score import inception_score
from tastemaker.metrics.kernel_distance import kernel_distance
from tastemaker.reporting.report import report
from tastemaker.storage.artifact import Artifact
from tastemaker.storage.files import read_json, write_json, write_text
from tastemaker.storage.images import decode
from tastemaker.storage.parquet import write_table
from tastemaker.storage.pool import Pool
from tastemaker.storage.results import read_report
from tastemaker.storage.run_dir import RunDir


def scored(folder: Path, scores: list[float | None], images: int) -> Pool:
    """Write a pool of `images` images per prompt, scored by "taste"."""
    pool, number = Pool(folder), len(scores)
    ids = [f"c{i}" for i in range(number)]
    columns: dict[str, Any] = {
        "candidate_id": ids,
        "prompt_id": [f"p{i // images}" for i in range(number)],
        "prompt": [f"prompt {i // images}" for i in range(number)],
        "seed": pa.array([i % images for i in range(number)], pa.int64()),
        "source": ["text-to-image"] * number,
        "source_id": [""] * number,
        "image": [{"bytes": b"", "path": None}] * number,
    }
    write_table(pool.shard(0), pa.table(columns))
    file = pool.score_file("taste", pool.shard(0))
    write_table(file, pa.table({"candidate_id": ids, "taste": pa.array(scores, pa.float32())}))
    write_json(file.parent / "done.json", {"command": "score", "key": "0"})
    return pool


def compared(**pools: Pool) -> dict[str, Any]:
    """Compare pools by "taste"."""
    return compare(score_table(pools, ["taste"], dict.fromkeys(pools)))


def test_report_by_hand(tmp_path: Path) -> None:
    base = scored(tmp_path / "base", [0.0, 0.0, 10.0, 10.0, 20.0, 20.0], 2)
    policy = scored(tmp_path / "policy", [1.0, 1.0, 12.0, 12.0, 23.0, 17.0], 2)
    report = compared(base=base, policy=policy)
    entry = report["models"]["policy"]["scores"]["taste"]
    # Gains 1, 1 | 2, 2 | 3, -3: mean 1, sums of residuals 0, 2, -2; 3/2 * 8 / 36.
    assert entry["difference"] == 1.0
    assert entry["difference_stderr"] == pytest.approx(math.sqrt(1.5 * 8 / 36))
    # Student's t of 2 degrees: 4.3027.
    ends = (entry["difference_low"], entry["difference_high"])
    reach = 4.3027 * math.sqrt(1.5 * 8 / 36)
    assert ends == pytest.approx((1 - reach, 1 + reach), rel=1e-4)
    # Base: sums of residuals -20, 0, 20 about a mean of 10; 3/2 * 800 / 36.
    known = report["models"]["base"]["scores"]["taste"]
    error = math.sqrt(1.5 * 800 / 36)
    assert known == {
        "mean": 10.0,
        "stderr": pytest.approx(error),
        "mean_low": pytest.approx(10 - 4.3027 * error, rel=1e-4),
        "mean_high": pytest.approx(10 + 4.3027 * error, rel=1e-4),
    }
    assert entry["win_rate"] == pytest.approx(5 / 6)
    assert (report["prompts"], report["images"]) == (3, 6)


def test_share_of_obeyed_prompts_by_hand(tmp_path: Path) -> None:
    base = scored(tmp_path / "base", [1.0, 0.0, 0.0, 1.0], 1)
    policy = scored(tmp_path / "policy", [1.0, 1.0, 0.0, 1.0], 1)
    report = compared(base=base, policy=policy)
    entry = report["models"]["policy"]["scores"]["taste"]
    # One of four gained: s.e. .25 of the gains 0, 1, 0, 0; t of 3 degrees 3.1824.
    assert (entry["mean"], entry["difference"]) == (0.75, 0.25)
    ends = (entry["difference_low"], entry["difference_high"])
    assert ends == pytest.approx((0.25 - 0.25 * 3.1824, 0.25 + 0.25 * 3.1824), rel=3e-3)
    assert report["shares"] == ["taste"]
    write_json(tmp_path / "report.json", report)
    line = "share of images: base 50.0 % -> policy 75.0 % (+25.0 [-54."
    assert line in summary(tmp_path / "report.json")


def test_a_score_of_another_number_is_no_share(tmp_path: Path) -> None:
    base = scored(tmp_path / "base", [1.0, 0.0], 1)
    policy = scored(tmp_path / "policy", [1.0, 0.5], 1)
    report = compared(base=base, policy=policy)
    assert "shares" not in report
    write_json(tmp_path / "report.json", report)
    assert "wins 75.0% of images" in summary(tmp_path / "report.json")


def test_one_prompt_has_no_error(tmp_path: Path) -> None:
    base, policy = (scored(tmp_path / name, [0.0, 1.0], 2) for name in ("base", "policy"))
    entry = compared(base=base, policy=policy)["models"]["policy"]["scores"]["taste"]
    assert (entry["stderr"], entry["difference_stderr"]) == (None, None)
    assert (entry["mean_low"], entry["difference_high"]) == (None, None)
    assert (entry["win_rate_low"], entry["win_rate_high"]) == (0.0, 1.0)


@pytest.mark.parametrize("bad", [None, math.nan, math.inf])
def test_a_score_that_is_missing_is_named(tmp_path: Path, bad: float | None) -> None:
    base = scored(tmp_path / "base", [0.0, 0.0, 1.0], 1)
    policy = scored(tmp_path / "policy", [0.0, bad, bad], 1)
    with pytest.raises(TastemakerError, match="taste.*a score that is not a finite number"):
        compared(base=base, policy=policy)


def test_a_table_that_cannot_be_compared_is_named(tmp_path: Path) -> None:
    base, other = (scored(tmp_path / name, [0.0, 1.0], 1) for name in ("base", "other"))
    table = score_table({"base": base, "other": other}, ["taste"], {"base": None, "other": 2.0})
    with pytest.raises(TastemakerError, match="no model is the base: the scores are of other"):
        compare(table.slice(2))
    with pytest.raises(TastemakerError, match="'other' have other prompts or seeds"):
        compare(table.slice(0, 3))
    with pytest.raises(TastemakerError, match="no column 'seed'"):
        compare(table.drop_columns("seed"))


def test_a_damaged_model_is_named_before_any_is_drawn(tmp_path: Path) -> None:
    lora = Artifact(tmp_path / "lora", "train", {})
    with lora.claimed():
        write_json(lora.folder / "model.json", {"base": "nano"})
        write_text(lora.folder / "pytorch_lora_weights.safetensors", "weights")
        lora.finish()
    (lora.folder / "pytorch_lora_weights.safetensors").write_text("weighty")
    (tmp_path / "prompts.txt").write_text("a cat", encoding="utf-8")
    config = EvaluateConfig(
        base="nano", prompts=str(tmp_path / "prompts.txt"), scorers=("sharpness",), device="cpu"
    )
    with pytest.raises(TastemakerError, match="is damaged"):
        evaluate(config, {"policy": lora.folder}, tmp_path / "out", tmp_path / "report.json")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lora", "prompts.txt"]


class Averages(torch.nn.Module):
    """Three classes: the means of the colours."""

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return 50 * pixels.mean((2, 3))


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> tuple[EvaluateConfig, Path]:
    """An evaluation of nano against itself by all metrics, with its own images for real ones."""
    folder = tmp_path_factory.mktemp("judged")
    torch.jit.script(Averages()).save(str(folder / "averages.pt"))
    (folder / "prompts.txt").write_text("a fish\na fox\na snail\na kite\n", encoding="utf-8")
    classifier = {"name": "inception_score", "classifier": str(folder / "averages.pt")}
    options: dict[str, Any] = {
        "base": "nano",
        "prompts": str(folder / "prompts.txt"),
        "scorers": ["sharpness"],
        "device": "cpu",
        "num_inference_steps": 1,
    }
    plain = EvaluateConfig.model_validate(options)
    evaluate(plain, {"policy": "nano"}, folder / "pools", folder / "report.json")
    options["real"] = str(folder / "pools" / "base")
    options["features"] = ["nano_judge"]
    options["metrics"] = ["kernel", "frechet", {**classifier, "splits": 2}]
    config = EvaluateConfig.model_validate(options)
    evaluate(config, {"policy": "nano"}, folder / "pools", folder / "all.json")
    return config, folder


def test_metrics_are_reached_by_name(judged: tuple[EvaluateConfig, Path]) -> None:
    _, folder = judged
    without, found = (read_report(folder / name) for name in ("report.json", "all.json"))
    assert found["metrics"] == ["kernel", "frechet", "inception_score"]
    assert not {"kernel", "frechet", "inception_score"} & set(without["models"]["policy"])
    pool = Pool(folder / "pools" / "policy")
    encoded = (row["image"] for row in pool.candidates(("image",)).to_pylist())
    images = [decode(each["bytes"], "image") for each in encoded]
    network = feature_network("nano_judge")
    features, names = network.features(images), [str(i) for i in range(4)]
    expected = kernel_distance(features, features, names, names)
    model = found["models"]["policy"]
    assert model["kernel"]["nano_judge"]["value"] == expected.value
    assert model["kernel"]["nano_judge"]["dimension"] == features.shape[1]
    assert set(model["frechet"]["nano_judge"]) >= {"value", "stderr", "real_to_real", "images"}
    score = inception_score(images, Averages(), splits=2)
    entry = model["inception_score"]["torchscript:averages"]
    assert (entry["value"], entry["std"]) == (score.mean, score.std)
    assert (entry["name"], entry["images"], entry["splits"]) == ("classifier score", 4, 2)


def test_scores_alone_give_what_the_report_says_of_them(
    judged: tuple[EvaluateConfig, Path],
) -> None:
    _, folder = judged
    held = read_report(folder / "report.json")
    again = compare(folder / "scores.parquet")
    assert again == {
        **{name: held[name] for name in ("schema", "base", "prompts", "images")},
        "models": held["models"],
    }
    assert again["images"] == 4
    assert str(folder / "scores.parquet") in summary(folder / "report.json")


@pytest.fixture
def looks() -> Counter[str]:
    """Images that each of two registered networks, which give features, looked at."""
    seen: Counter[str] = Counter()

    def register(name: str) -> None:
        @SCORERS.register(name)
        class Looks:
            def to(self, device: torch.device, dtype: torch.dtype) -> Looks:
                return self

            def features(self, images: Sequence[Image.Image]) -> torch.Tensor:
                seen[name] += len(images)
                return torch.tensor([ImageStat.Stat(image).mean for image in images])

            def __call__(self, images: Any, prompts: Any) -> torch.Tensor:
                return self.features(images).mean(1)

    register("looks_once")
    register("looks_later")
    return seen


def test_a_second_evaluation_computes_what_is_missing_alone(
    judged: tuple[EvaluateConfig, Path], looks: Counter[str], tmp_path: Path
) -> None:
    config, folder = judged
    pools = tmp_path / "pools"
    for name in ("base", "policy"):
        shutil.copytree(folder / "pools" / name, pools / name)
    real = tmp_path / "real"
    shutil.copytree(folder / "pools" / "base", real)
    write_json(real / "done.json", {**read_json(real / "done.json"), "key": "another"})
    report = tmp_path / "report.json"

    def judge(*features: str, **options: Any) -> dict[str, Any]:
        given = config.model_dump(mode="json") | {"features": features, "real": str(real)}
        section = EvaluateConfig.model_validate(given | options)
        evaluate(section, {"policy": "nano"}, pools, report)
        return read_report(report)

    first = judge("looks_once")
    assert looks == {"looks_once": 3 * 4}
    written = report.stat().st_mtime_ns
    assert judge("looks_once", device="auto") == first
    assert report.stat().st_mtime_ns == written
    for file in (report, tmp_path / "scores.parquet"):
        file.unlink()
        assert judge("looks_once") == first
        assert file.is_file()
    both = judge("looks_once", "looks_later")
    assert looks == {"looks_once": 3 * 4, "looks_later": 3 * 4}
    assert both["key"] != first["key"]
    write_json(real / "done.json", {**read_json(real / "done.json"), "key": "changed"})
    assert judge("looks_once")["key"] != first["key"]
    assert looks == {"looks_once": 4 * 4, "looks_later": 3 * 4}


WITHOUT_TORCH = """
import json, sys
from pathlib import Path

sys.modules["torch"] = None
from tastemaker.config.evaluation import EvaluateConfig

from tastemaker.evaluation.evaluate import evaluate

config, folder = EvaluateConfig.model_validate(json.loads(sys.argv[1])), Path(sys.argv[2])
evaluate(config, {"policy": "nano"}, folder / "pools", folder / "all.json")
"""


def test_a_finished_evaluation_returns_without_torch(judged: tuple[EvaluateConfig, Path]) -> None:
    config, folder = judged
    text = (folder / "all.json").read_text(encoding="utf-8")
    words = [sys.executable, "-c", WITHOUT_TORCH, config.model_dump_json(), str(folder)]
    ended = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr[-2000:]
    assert (folder / "all.json").read_text(encoding="utf-8") == text


def test_metrics_are_on_the_page(judged: tuple[EvaluateConfig, Path], tmp_path: Path) -> None:
    _, folder = judged
    shutil.copyfile(folder / "all.json", tmp_path / "report.json")
    page = report(ReportConfig(), RunDir(tmp_path)).read_text(encoding="utf-8")
    for name in ("kernel distance, nano_judge", "classifier score, torchscript:averages"):
        assert page.count(f'<th scope="row">{name}</th>') == 2  # base and policy


@pytest.mark.parametrize(
    ("metric", "words"),
    [
        ("inception", "unknown metric 'inception'. Did you mean inception_score"),
        (
            {"name": "inception_score", "classifier": "gone.pt", "splits": 2},
            "'gone.pt' does not exist",
        ),
        ({"name": "inception_score", "classifier": "@", "splits": 5}, "cuts 4 images per model"),
    ],
)
def test_a_metric_that_cannot_be_is_refused_before_drawing(
    judged: tuple[EvaluateConfig, Path], tmp_path: Path, metric: Any, words: str
) -> None:
    config, folder = judged
    if isinstance(metric, dict):
        name = metric["classifier"].replace("@", str(folder / "averages.pt"))
        metric = {**metric, "classifier": name}
    given = config.model_dump(mode="json") | {"metrics": [metric]}
    with pytest.raises((TastemakerError, ValueError), match=words):
        evaluate(
            EvaluateConfig.model_validate(given), {"policy": "nano"}, tmp_path, tmp_path / "r.json"
        )
    assert not list(tmp_path.iterdir())
