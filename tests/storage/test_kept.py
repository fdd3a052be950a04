"""Artifacts of other configurations: aside and back by renames, whatever kills come between."""

from __future__ import annotations

import contextlib
import itertools
import subprocess
import sys
from pathlib import Path

import pytest

from tastemaker.core.errors import TastemakerError
from tastemaker.storage.artifact import Artifact
from tastemaker.storage.files import write_text
from tastemaker.storage.run_dir import RunDir

MADE = ("candidates", "pairs", "evaluation/base")


def make(run: RunDir, seed: int, made: list[str] | None = None) -> None:
    """A run of artifacts that all depend on its seed; `made` lists those that had to be made."""
    with run.claimed(f"recipe: r\nseed: {seed}\n", dict):
        for name in MADE:
            artifact = Artifact(run.folder / name, name, {"seed": seed})
            with artifact.claimed() as unfinished:
                if unfinished:
                    write_text(artifact.folder / "file", f"{name} of {seed}")
                    artifact.finish()
                    if made is not None:
                        made.append(name)
        write_text(run.report_json, f"of {seed}")


def contents(run: RunDir) -> dict[str, str]:
    names = (*(f"{name}/file" for name in MADE), "report.json")
    return {name: (run.folder / name).read_text() for name in names}


@pytest.mark.parametrize("moves", range(12))
def test_killed_before_any_rename_nothing_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moves: int
) -> None:
    """Three artifacts and a report go, three are made; either configuration goes on from there."""
    run = RunDir(tmp_path / "run")
    make(run, 0)
    first = contents(run)
    left = itertools.count()

    def dies(self: Path, target: Path, rename=Path.rename) -> Path:  # type: ignore[no-untyped-def]
        if next(left) == moves:
            raise KeyboardInterrupt
        return rename(self, target)

    with monkeypatch.context() as patch, contextlib.suppress(KeyboardInterrupt):
        patch.setattr(Path, "rename", dies)
        patch.setattr(Path, "replace", lambda self, target: dies(self, target, Path.rename))
        make(run, 1)
    for seed in (1, 0, 1) if moves % 2 else (0, 1, 0):
        made: list[str] = []
        make(run, seed, made)
        if seed == 0:
            assert made == []
            assert contents(run) == first
    kept = [file.read_text() for file in (run.folder / ".artifacts").glob("run-*/report.json")]
    assert {contents(run)["report.json"], *kept} == {"of 0", "of 1"}


def test_an_unfinished_artifact_goes_on_when_it_returns(tmp_path: Path) -> None:
    run = RunDir(tmp_path)

    def stop(seed: int) -> None:
        with run.claimed(f"recipe: r\nseed: {seed}\n", dict):
            artifact = Artifact(run.policy, "train", {"seed": seed})
            with artifact.claimed(), pytest.raises(FileNotFoundError):
                (run.policy / "half").read_text()
            write_text(run.policy / "half", str(seed))

    stop(0)
    stop(1)
    with (
        run.claimed("recipe: r\nseed: 0\n", dict),
        Artifact(run.policy, "train", {"seed": 0}).claimed() as unfinished,
    ):
        assert unfinished
        assert (run.policy / "half").read_text() == "0"


def test_an_artifact_in_which_another_command_writes_is_not_moved(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    make(run, 0)
    code = """
import sys, time
from pathlib import Path
from tastemaker.storage.locks import exclusive
with exclusive(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""
    place = str(run.candidates / "scores" / "judge")
    with subprocess.Popen([sys.executable, "-c", code, place], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        with pytest.raises(TastemakerError, match=f"another command is writing in {place}"):
            make(run, 1)
        other.kill()
    make(run, 1)


def test_outside_a_run_another_configuration_is_refused(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    make(run, 0)
    with (
        pytest.raises(TastemakerError, match="seed: 0 there, 1 now"),
        Artifact(run.pairs, "pairs", {"seed": 1}).claimed(),
    ):
        pass
