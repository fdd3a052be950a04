"""Two processes compute what one computes: the same batch, errors, arrays and weights."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from test_train import pairs  # noqa: F401


def launch(processes: int, words: list[str]) -> str:
    """Run the command line in so many processes, as `torchrun` and `accelerate launch` do.

    Returns what they wrote to stderr: their progress.
    """
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    done = subprocess.run(
        [sys.executable, *launcher, "-m", "tastemaker", *words],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stderr


def lines(file: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in file.open()]


@pytest.mark.timeout(300)
def test_two_processes_train_as_one(
    pairs: Path,  # noqa: F811
    tiny_model: Path,
    tmp_path: Path,
) -> None:
    options = [
        f"model={tiny_model}",
        "device=cpu",
        "steps=3",
        "gradient_accumulation=2",
        # AdamW divides by the gradient's size, and a large beta multiplies errors: both would blow
        # up the last digits, in which one sum and two half sums differ.
        "learning_rate=1e-2",
        "adam_epsilon=1e-2",
        "loss.beta=100",
        "credit={name: dde, buckets: 10}",
        "tracker=null",
    ]
    for processes, batch in ((1, 4), (2, 2)):
        out = str(tmp_path / str(processes))
        launch(processes, ["train", str(pairs), out, *options, f"batch_size={batch}"])
    one, two = tmp_path / "1", tmp_path / "2"
    for name in ("metrics.jsonl", "credit.jsonl"):
        for alone, together in zip(lines(one / name), lines(two / name), strict=True):
            assert together.keys() == alone.keys()
            for key, value in alone.items():
                held = torch.tensor(together[key], dtype=torch.float64)
                expected = torch.tensor(value, dtype=torch.float64)
                torch.testing.assert_close(held, expected, rtol=1e-3, atol=5e-4, msg=key)
    checkpoint = "checkpoints/step-000003.safetensors"
    alone, together = load_file(one / checkpoint), load_file(two / checkpoint)
    assert alone["credit.visited"].equal(together["credit.visited"])
    assert alone["credit.visited"].any()
    torch.testing.assert_close(together["credit.values"], alone["credit.values"])
    for name in (name for name in alone if name.startswith("weights.")):
        torch.testing.assert_close(together[name], alone[name], rtol=1e-2, atol=1e-4)


@pytest.mark.timeout(300)
def test_two_processes_share_the_drawing_and_the_scoring(
    tiny_model: Path, tiny_clip: Path, tmp_path: Path
) -> None:
    """Each does half, and the pool has the bytes of one made by a single process."""
    (tmp_path / "prompts.txt").write_text("\n".join(f"prompt {i}" for i in range(8)))
    draw = [
        f"model={tiny_model}",
        f"prompts={tmp_path / 'prompts.txt'}",
        "num_candidates=1",
        "num_inference_steps=2",
        "shard_size=2",
        "device=cpu",
    ]
    score = f"scorers=[{{name: clip, label: tiny, model: {tiny_clip}}}]"
    for number in (1, 2):
        pool = str(tmp_path / str(number))
        progress = launch(number, ["generate", pool, *draw])
        progress += launch(number, ["score", pool, score, "device=cpu"])
        drawn = {int(total) for total in re.findall(r"generate \d: .*?\| *\d+/(\d+) \[", progress)}
        assert max(drawn) == 8 // number
        scored = {int(count) for count in re.findall(r"score \d by tiny: (\d+)images \[", progress)}
        assert max(scored) == 8 // number
    one, two = tmp_path / "1", tmp_path / "2"
    files = sorted(path.relative_to(one) for path in one.rglob("*.parquet"))
    assert len(files) == 8
    for file in files:
        assert (one / file).read_bytes() == (two / file).read_bytes()


DIFFERENT = """
import os, sys
from tastemaker.cli import main
sys.exit(main([*sys.argv[1:], f"steps={2 + int(os.environ['RANK'])}"]))
"""

DYING = """
import os, sys
from tastemaker.cli import main
from tastemaker.train import loop

if os.environ["RANK"] == "1":
    loop.Trainer._step = lambda self, step: os._exit(7)
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize(
    ("script", "says"),
    [(DIFFERENT, "'steps: 3', not 'steps: 2'"), (DYING, "exitcode  : 7")],
    ids=["different", "dying"],
)
def test_processes_that_cannot_go_on_end_with_an_error(
    script: str,
    says: str,
    pairs: Path,  # noqa: F811
    tiny_model: Path,
    tmp_path: Path,
) -> None:
    file = tmp_path / "launched.py"
    file.write_text(script, encoding="utf-8")
    words = ["train", str(pairs), str(tmp_path / "out"), f"model={tiny_model}", "device=cpu"]
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [sys.executable, *launcher, str(file), *words, "tracker=null", "batch_size=2"],
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
        env={**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode != 0
    assert says in done.stderr
