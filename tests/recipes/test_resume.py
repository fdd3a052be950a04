"""Killed and started again, commands end with the files of undisturbed ones and no others."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import write_run
from folders import digests

# Imports are made once; each attempt is a fork of the importing process, so that a kill lands in
# the stages' work and not in the import of torch. The parent computes nothing: forking is safe.
# Kills come right before a change of the file system, seen by an audit hook, and not after some
# time: each of them lands, on machines of any speed.
ATTEMPTS = f"""
import json, os, random, signal, sys
import diffusers, transformers, peft, pyarrow.parquet, matplotlib.pyplot, torch
from diffusers import StableDiffusionPipeline, DDPMScheduler
from transformers import CLIPModel, CLIPTextModel, AutoTokenizer, CLIPImageProcessor
import tastemaker.training.preference.trainer, tastemaker.scorers.pool, tastemaker.backbones.unet
sys.path.insert(0, {str(Path(__file__).parents[2] / "benchmarks" / "reliability")!r})
from kills import start

KILLS = 8

def attempt(place, words, at_change=None):
    os.makedirs(place, exist_ok=True)
    os.chdir(place)
    status = start(words, at_change=at_change)
    os.chdir("..")
    return status

run = ("run", sys.argv[1], "output=runs")
assert attempt("undisturbed", run, 0) == 0
whole = int(open("undisturbed/changes.txt").read())
rng = random.Random(0)
for _ in range(KILLS):
    assert attempt("killed", run, rng.randint(2, whole // KILLS)) == -signal.SIGKILL
assert attempt("killed", run) == 0

dies_at = None

def die(event, arguments):
    if dies_at and event == "os.rename" and os.path.basename(arguments[1]) == dies_at:
        os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(die)
for words, name in json.loads(sys.argv[2]):
    assert attempt("undisturbed", words) == 0
    dies_at = name
    assert attempt("killed", words) == -signal.SIGKILL
    dies_at = None
    assert attempt("killed", words) == 0
"""


def outside_stages(model: Path, prompts: Path) -> list[tuple[list[str], str]]:
    """Commands that write outside a stage, and what they are killed right before having whole."""
    judged = [
        f"base={model}",
        f"prompts={prompts}",
        "scorers=[sharpness]",
        "device=cpu",
        "num_inference_steps=1",
    ]
    return [
        (["show", "runs/small/candidates", "html=runs/show.html"], "show.html"),
        (["report", "runs/small"], "before_after.png"),
        (["evaluate", "runs/small/policy", "runs/judged", *judged], "report.json"),
        (["export", "runs/small/pairs", "runs/exported"], "exported"),
    ]


@pytest.mark.timeout(300)
@pytest.mark.slow
def test_killed_commands_end_as_undisturbed_ones(
    tmp_path: Path, tiny_model: Path, tiny_clip: Path
) -> None:
    run_file = write_run(tmp_path, tiny_model, tiny_clip)
    writers = json.dumps(outside_stages(tiny_model, tmp_path / "held_out.txt"))
    done = subprocess.run(
        [sys.executable, "-c", ATTEMPTS, str(run_file), writers],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    undisturbed = digests(tmp_path / "undisturbed" / "runs")
    assert len(undisturbed) > 40
    assert digests(tmp_path / "killed" / "runs") == undisturbed
