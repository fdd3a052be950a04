"""The five commands end to end on a tiny model with random weights, and what each refuses."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from PIL import Image

from conftest import PROMPTS
from tastemaker.config.loading import load
from tastemaker.core.errors import TastemakerError
from tastemaker.recipes.run import run
from tastemaker.storage.pairs import PairSet
from tastemaker.storage.pool import Pool


def test_prompts_of_the_last_room_are_read_before_the_first(run_file: Path) -> None:
    (run_file.parent / "held_out.txt").unlink()
    with pytest.raises(TastemakerError, match=r"held_out\.txt"):
        run(load(str(run_file)))
    assert not (run_file.parent / "runs" / "small" / "candidates").exists()


def test_run_makes_every_file(run_file: Path) -> None:
    folder = run(load(str(run_file)))
    pool = Pool(folder.candidates)
    scores = pool.scores()
    assert scores.num_rows == 12
    assert scores["prompt"].to_pylist() == [prompt for prompt in PROMPTS for _ in range(3)]
    by_id = dict(zip(scores["candidate_id"].to_pylist(), scores["tiny"].to_pylist(), strict=True))
    pairs = PairSet(folder.pairs).table().to_pylist()
    assert [row["prompt"] for row in pairs] == list(PROMPTS)
    for row in pairs:
        gap = by_id[row["chosen_id"]] - by_id[row["rejected_id"]]
        assert row["margin"] == pytest.approx(gap)
        assert gap > 0
    report = json.loads(folder.report_json.read_text())
    assert report["prompts"] == 3
    assert set(report["models"]) == {"base", "policy"}
    assert 0 <= report["models"]["policy"]["scores"]["tiny"]["win_rate"] <= 1
    assert folder.report_html.stat().st_size > 1000
    with Image.open(folder.before_after) as strip:
        assert strip.width > strip.height
    metrics = [json.loads(line) for line in (folder.policy / "metrics.jsonl").open()]
    assert [row["step"] for row in metrics] == [1, 2, 3, 4]
    assert metrics[0]["loss"] == pytest.approx(math.log(2), abs=1e-7)
    assert metrics[0]["rewards/margins"] == 0
