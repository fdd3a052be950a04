"""The command line as a user calls it: commands by themselves, help at once, plain prompt files."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tastemaker.cli.command_line import main
from tastemaker.config.alternatives import NOISES, REFERENCES
from tastemaker.storage.pool import Pool

SAMPLING = ("num_inference_steps=2", "guidance_scale=2", "batch_size=4")


def test_each_room_by_itself(
    tmp_path: Path, tiny_model: Path, tiny_clip: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prompts = tmp_path / "prompts.csv"
    prompts.write_text('prompt,note\n"a cat, sitting",x\na dog,y\na cat,z\n', encoding="utf-8")
    scorers = f"scorers=[{{name: clip, label: tiny, model: {tiny_clip}}}]"
    pool, pairs, policy, judged = (str(tmp_path / name) for name in "abcd")
    model, source = f"model={tiny_model}", f"prompts={prompts}"
    assert main(["generate", pool, model, source, "num_candidates=3", *SAMPLING]) == 0
    assert main(["score", pool, scorers]) == 0
    assert main(["pair", pool, pairs, "rule.scorer=tiny"]) == 0
    assert (
        main(["train", pairs, policy, model, "max_steps=2", "batch_size=2", "report_to=null"]) == 0
    )
    base = f"base={tiny_model}"
    assert main(["evaluate", policy, judged, base, source, scorers, *SAMPLING]) == 0
    assert "3 prompts, 3 images per model" in capsys.readouterr().out
    report = json.loads((tmp_path / "d" / "report.json").read_text())
    assert set(report["models"]["policy"]["scores"]["tiny"]) == {
        "mean",
        "stderr",
        "mean_low",
        "mean_high",
        "difference",
        "difference_stderr",
        "difference_low",
        "difference_high",
        "win_rate",
        "win_rate_low",
        "win_rate_high",
        "beat_ratio",
    }


def test_a_second_scorer_is_added_to_the_pool(
    tmp_path: Path, tiny_model: Path, tiny_clip: Path
) -> None:
    (tmp_path / "p.txt").write_text("a cat\n", encoding="utf-8")
    pool = tmp_path / "pool"
    main(["generate", str(pool), f"model={tiny_model}", f"prompts={tmp_path / 'p.txt'}", *SAMPLING])
    for label, scale in (("one", 1), ("ten", 10)):
        scorer = f"{{name: clip, label: {label}, model: {tiny_clip}, scale: {scale}}}"
        assert main(["score", str(pool), f"scorers=[{scorer}]"]) == 0
    scores = Pool(pool).scores()
    one, ten = scores["one"].to_pylist(), scores["ten"].to_pylist()
    assert ten == pytest.approx([10 * value for value in one], rel=1e-5)
    assert len(set(one)) > 1


@pytest.mark.parametrize("verb", ["", "generate", "score", "pair", "train", "evaluate", "run"])
def test_help_explains_without_torch(verb: str) -> None:
    code = (
        "import sys\nfrom tastemaker.cli.command_line import main\n"
        "try:\n    main([word for word in sys.argv[1:] if word])\n"
        "except SystemExit:\n    pass\n"
        "assert 'torch' not in sys.modules, 'torch was imported'\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, verb, "--help"], capture_output=True, text=True, check=True
    )
    assert "usage: tastemaker" in done.stdout


def test_help_names_every_option_with_its_default(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    text = capsys.readouterr().out
    for words in ("learning_rate=1e-05", "lora.r=8", "model=(required)", "loss=dpo"):
        assert words in text


def test_doctor_lists_every_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    text = capsys.readouterr().out
    for words in ("diffusion_dpo:", "best_worst:", "dpo:", "clip:", "torch", "beta (5000.0)"):
        assert words in text
    for line in (*REFERENCES.items(), *NOISES.items()):
        assert "  {}: {}".format(*line) in text


def test_report_is_made_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(tmp_path)]) == 2
    assert "does not exist" in capsys.readouterr().err
