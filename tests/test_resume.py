"""Killed at random moments and started again, a run ends with the files of an undisturbed one."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

# Imports are made once; each attempt is a fork of the importing process, so that a kill lands in
# the stages' work and not in the import of torch. The parent computes nothing: forking is safe.
# Kills come right before a change of the file system, counted by an audit hook, and not after some
# time: each of them lands, on machines of any speed.
ATTEMPTS = """
import os, random, signal, sys
import diffusers, transformers, peft, pyarrow.parquet, matplotlib.pyplot, torch
from diffusers import StableDiffusionPipeline, DDPMScheduler
from transformers import CLIPModel, CLIPTextModel, AutoTokenizer, CLIPImageProcessor
import tastemaker.train.loop, tastemaker.scorers.pool, tastemaker.backbones.unet
from tastemaker.config import load
from tastemaker.recipes.runner import run

KILLS = 8

def changes(event, arguments):
    if event == "open":
        return bool((arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR))
    return event in {"os.rename", "os.remove", "os.mkdir"}

def attempt(place, last=None):
    os.makedirs(place, exist_ok=True)
    child = os.fork()
    if child == 0:
        os.chdir(place)
        torch.set_num_threads(1)
        sys.stdout = sys.stderr = open(os.devnull, "w")
        seen = 0
        def count(event, arguments):
            nonlocal seen
            if changes(event, arguments):
                seen += 1
                if seen == last:
                    os.kill(os.getpid(), signal.SIGKILL)
        sys.addaudithook(count)
        run(load(sys.argv[1], ("output=runs",)))
        with open("../changes", "w") as file:
            file.write(str(seen))
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

assert attempt("undisturbed") == 0
whole = int(open("changes").read())
rng = random.Random(0)
for _ in range(KILLS):
    assert attempt("killed", rng.randint(2, whole // KILLS)) == -signal.SIGKILL
assert attempt("killed") == 0
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
        [sys.executable, "-c", ATTEMPTS, str(run_file)],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    undisturbed = digests(tmp_path / "undisturbed")
    assert len(undisturbed) > 30
    assert digests(tmp_path / "killed") == undisturbed
