"""Two processes compute what one computes: the same batch, errors, arrays and weights."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from test_train import pairs  # noqa: F401


def launch(processes: int, words: list[str]) -> None:
    """Run the command line in so many processes, as `torchrun` and `accelerate launch` do."""
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    done = subprocess.run(
        [sys.executable, *launcher, "-m", "tastemaker", *words],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]


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
