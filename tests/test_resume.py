"""Killed at random moments and started again, a run ends with the files of an undisturbed one."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

# Imports are made once; each attempt is a fork of the importing process, so that a kill lands in
# the rooms' work and not in the import of torch. The parent computes nothing: forking is safe.
ATTEMPTS = """
import json, os, random, signal, sys, time
import diffusers, transformers, peft, pyarrow.parquet, matplotlib.pyplot, torch
from diffusers import StableDiffusionPipeline, DDPMScheduler
from transformers import CLIPModel, CLIPTextModel, AutoTokenizer, CLIPImageProcessor
import tastemaker.train.loop, tastemaker.scorers.pool, tastemaker.backbones.unet
from tastemaker.config import load
from tastemaker.recipes.runner import run

def attempt(place):
    os.makedirs(place, exist_ok=True)
    child = os.fork()
    if child == 0:
        os.chdir(place)
        torch.set_num_threads(1)
        sys.stdout = sys.stderr = open(os.devnull, "w")
        run(load(sys.argv[1], ("output=runs",)))
        os._exit(0)
    return child

start = time.monotonic()
assert os.waitpid(attempt("undisturbed"), 0)[1] == 0
whole = time.monotonic() - start
rng = random.Random(int(sys.argv[2]))
killed = []
for _ in range(8):
    child = attempt("killed")
    # Short lives: most kills leave work for the next attempt, also where it runs faster.
    time.sleep(rng.uniform(0.02, 0.3) * whole)
    os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    killed.append(os.WIFSIGNALED(status))
assert os.waitpid(attempt("killed"), 0)[1] == 0
print(json.dumps({"killed": sum(killed), "seconds": whole}))
"""


def digests(folder: Path) -> dict[str, str]:
    """Every file's hash."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.mark.timeout(300)
def test_killed_run_ends_as_an_undisturbed_one(run_file: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", ATTEMPTS, str(run_file), "0"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout.splitlines()[-1])["killed"] >= 4
    undisturbed = digests(tmp_path / "undisturbed")
    assert len(undisturbed) > 30
    assert digests(tmp_path / "killed") == undisturbed
