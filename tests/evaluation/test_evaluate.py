"""What an evaluation says of scored pools: clustered errors, paired differences, no silent gaps."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tastemaker.config.sections import EvaluateConfig
from tastemaker.core.errors import TastemakerError
from tastemaker.evaluation.evaluate import compare, evaluate
from tastemaker.storage.artifact import Artifact
from tastemaker.storage.files import write_json, write_text
from tastemaker.storage.parquet import write_table
from tastemaker.storage.pool import Pool


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


def test_report_by_hand(tmp_path: Path) -> None:
    base = scored(tmp_path / "base", [0.0, 0.0, 10.0, 10.0, 20.0, 20.0], 2)
    policy = scored(tmp_path / "policy", [1.0, 1.0, 12.0, 12.0, 23.0, 17.0], 2)
    report = compare({"base": base, "policy": policy}, ["taste"], 3)
    entry = report["models"]["policy"]["scores"]["taste"]
    # Gains 1, 1 | 2, 2 | 3, -3: mean 1, sums of residuals 0, 2, -2; 3/2 * 8 / 36.
    assert entry["difference"] == 1.0
    assert entry["difference_stderr"] == pytest.approx(math.sqrt(1.5 * 8 / 36))
    # Base: sums of residuals -20, 0, 20 about a mean of 10; 3/2 * 800 / 36.
    known = report["models"]["base"]["scores"]["taste"]
    assert known == {"mean": 10.0, "stderr": pytest.approx(math.sqrt(1.5 * 800 / 36))}
    assert entry["win_rate"] == pytest.approx(5 / 6)
    assert (report["prompts"], report["images"]) == (3, 6)


def test_one_prompt_has_no_error(tmp_path: Path) -> None:
    base, policy = (scored(tmp_path / name, [0.0, 1.0], 2) for name in ("base", "policy"))
    report = compare({"base": base, "policy": policy}, ["taste"], 1)
    entry = report["models"]["policy"]["scores"]["taste"]
    assert (entry["stderr"], entry["difference_stderr"]) == (None, None)
    assert (entry["win_rate_low"], entry["win_rate_high"]) == (0.0, 1.0)


@pytest.mark.parametrize("bad", [None, math.nan, math.inf])
def test_a_score_that_is_missing_is_named(tmp_path: Path, bad: float | None) -> None:
    base = scored(tmp_path / "base", [0.0, 0.0, 1.0], 1)
    policy = scored(tmp_path / "policy", [0.0, bad, bad], 1)
    with pytest.raises(TastemakerError, match="taste.*a score that is no finite number"):
        compare({"base": base, "policy": policy}, ["taste"], 3)


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
