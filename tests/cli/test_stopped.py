"""Ctrl-C and SIGTERM in the middle of a shard: what is done is kept, and the command goes on."""

from __future__ import annotations

import itertools
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from PIL import ImageStat

from folders import put
from pictures import encoded, noise
from tastemaker.cli import main
from tastemaker.core.registry import SCORERS
from tastemaker.datasets import conversion
from tastemaker.storage.photographs import Decoded


def files(folder: Path) -> dict[str, bytes]:
    return {
        file.relative_to(folder).as_posix(): file.read_bytes()
        for file in folder.rglob("*")
        if file.is_file()
    }


@pytest.fixture
def words(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A command that draws 60 images in 30 batches of one shard."""
    monkeypatch.chdir(tmp_path)
    Path("prompts.txt").write_text("a cat\na dog\n", encoding="utf-8")
    sampling = ["num_candidates=30", "num_inference_steps=4", "batch_size=2", "device=cpu"]
    return ["generate", "pool", f"model={tiny_model}", "prompts=prompts.txt", *sampling]


@pytest.mark.slow
def test_an_interrupted_generation_keeps_its_batches(words: list[str]) -> None:
    command = [sys.executable, "-m", "tastemaker", *words]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        said = b""
        while not re.search(rb"\b[1-9]\d*/60 ", said) and (more := process.stderr.read1()):  # type: ignore[attr-defined]
            said += more
        process.send_signal(signal.SIGINT)
        last = process.stderr.read().decode().strip().splitlines()[-1]
    assert process.returncode == 130
    assert last.endswith(f"to go on: tastemaker {' '.join(words)}")
    (part,) = Path("pool").glob("unfinished-*")
    drawn = pq.read_metadata(part).num_rows
    assert 2 <= drawn < 60
    assert drawn % 2 == 0
    begun = pq.read_table(part)
    assert main(words) == 0
    assert pq.read_table("pool/candidates-00000.parquet").slice(0, drawn).equals(begun)
    stopped = files(Path("pool"))
    assert main([words[0], "undisturbed", *words[2:]]) == 0
    assert stopped == files(Path("undisturbed"))


def test_a_terminated_scoring_keeps_its_batches(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[int] = []

    @SCORERS.register("stopped_for_a_test")
    class Stopped:
        """The mean of the pixels; it terminates the process at its third batch."""

        def to(self, device: torch.device, dtype: torch.dtype) -> Stopped:
            return self

        def __call__(self, images, prompts) -> torch.Tensor:  # type: ignore[no-untyped-def]
            seen.append(len(images))
            if len(seen) == 3:
                os.kill(os.getpid(), signal.SIGTERM)
            return torch.tensor([ImageStat.Stat(image.convert("L")).mean[0] for image in images])

    assert main([*words, "num_candidates=10", "num_inference_steps=1"]) == 0
    score = ["score", "pool", "scorers=[stopped_for_a_test]", "batch_size=4"]
    assert main(score) == 143
    assert "to go on: tastemaker score pool" in capsys.readouterr().err.splitlines()[-1]
    assert main(score) == 0
    assert seen == [4, 4, 4, 4, 4, 4], "the third batch alone is scored again"
    scores = Path("pool/scores/stopped_for_a_test")
    assert sorted(file.name for file in scores.iterdir()) == [
        "artifact.json",
        "done.json",
        "scores-00000.parquet",
    ]


@pytest.mark.parametrize("what", ["images", "comparisons"])
def test_a_terminated_import_keeps_its_images(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # The first file is broken; of photographs, the last repeats one from before the stop.
    for number, side in itertools.product(range(4), ("chosen", "rejected")):
        picture = encoded(noise(number + 10 * (side == "chosen")), "PNG")
        put(tmp_path / "in" / side / f"{number}.png", picture)
        put(tmp_path / "in" / side / f"{number}.txt", "a cat")
    put(tmp_path / "in" / "chosen" / "0.png", b"broken")
    put(tmp_path / "in" / "rejected" / "3.png", encoded(noise(11), "PNG"))
    read_photograph, read = conversion.read_photograph, []

    def terminates(data: bytes, max_pixels: int) -> Decoded:
        read.append(data)
        if len(read) == 4:
            os.kill(os.getpid(), signal.SIGTERM)
        return read_photograph(data, max_pixels)

    monkeypatch.chdir(tmp_path)
    words = ["images=in"] if what == "images" else ["comparisons=twins", "comparisons.path=in"]
    words += ["resolution=16", "shard_size=4"]
    monkeypatch.setattr(conversion, "read_photograph", terminates)
    assert main(["import", "pool", *words]) == 143
    assert "to go on: tastemaker import pool" in capsys.readouterr().err.splitlines()[-1]
    (part,) = Path("pool").glob("unfinished-*")
    assert pq.read_metadata(part).num_rows == {"images": 3, "comparisons": 4}[what]
    assert main(["import", "pool", *words, "filters.min_side=8"]) == 2
    assert "another configuration" in capsys.readouterr().err
    assert main(["import", "pool", *words]) == 0
    stopped, pool = read.copy(), files(Path("pool"))
    assert main(["import", "undisturbed", *words]) == 0
    assert pool == files(Path("undisturbed"))
    assert stopped == read[len(stopped) :], "no image is converted twice"
