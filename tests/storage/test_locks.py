"""One command a folder: who holds it is named, the dead hold nothing, the refused leave nothing."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tastemaker.core.errors import TastemakerError
from tastemaker.storage import locks as claims
from tastemaker.storage.artifact import Artifact, finished_key
from tastemaker.storage.files import atomic, read_json, read_json_lines, read_record, write_text
from tastemaker.storage.locks import exclusive

HOLDER = """
import sys, time
from pathlib import Path
from tastemaker.cli.command_line import main
from tastemaker.storage.artifact import Artifact
with Artifact(Path(sys.argv[1]), "train", {}).claimed():
    (Path(sys.argv[1]) / "half").write_text("x")
    (Path(sys.argv[1]) / ".model.0a1b2c3d.tmp").write_text("half of the w")
    (Path(sys.argv[1]) / ".tmpGUhu5I").write_text("what safetensors had begun")
    print("claimed", flush=True)
    time.sleep(60)
"""


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*"))


def holder(folder: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "claimed\n"
    return process


def made(artifact: Artifact, *files: str) -> None:
    with artifact.claimed() as unfinished:
        if unfinished:
            for name in files:
                write_text(artifact.folder / name, name)
            artifact.finish(files_made=len(files))


class TestExclusive:
    def test_a_second_command_is_refused_and_a_dead_one_is_cleared_away(
        self, tmp_path: Path
    ) -> None:
        folder = tmp_path / "policy"
        process = holder(folder)
        try:
            with (
                pytest.raises(TastemakerError, match=f"process {process.pid} on "),
                Artifact(folder, "train", {}).claimed(),
            ):
                pass
            assert ".model.0a1b2c3d.tmp" in names(folder)
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
        made(Artifact(folder, "train", {}), "model")
        assert names(folder) == ["artifact.json", "done.json", "half", "model"]

    def test_a_lock_without_a_name_is_of_a_killed_command(self, tmp_path: Path) -> None:
        write_text(tmp_path / "policy" / ".lock", "")
        made(Artifact(tmp_path / "policy", "train", {}), "model")
        assert names(tmp_path / "policy") == ["artifact.json", "done.json", "model"]

    def test_a_terminated_command_gives_the_folder_back(self, tmp_path: Path) -> None:
        process = holder(tmp_path)
        process.terminate()
        assert process.wait() == 128 + signal.SIGTERM
        assert ".lock" not in names(tmp_path)

    def test_a_lock_of_another_host_is_taken_when_it_shows_no_sign_of_life(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(claims, "LEASE_SECONDS", 1.5)
        with exclusive(tmp_path):
            theirs = (tmp_path / ".lock").read_text()
        lines = [
            "host=elsewhere" if line.startswith("host=") else line for line in theirs.split("\n")
        ]
        (tmp_path / ".lock").write_text("\n".join(lines))
        with exclusive(tmp_path):
            assert f"pid={os.getpid()}" in (tmp_path / ".lock").read_text()
        assert "elsewhere" in capsys.readouterr().out
        assert names(tmp_path) == []

    def test_folders_that_stay_empty_go_and_nested_blocks_are_one(self, tmp_path: Path) -> None:
        folder = tmp_path / "a" / "b"
        with exclusive(folder), exclusive(folder):
            assert names(folder) == [".lock"]
        assert names(tmp_path) == []

    def test_half_written_files_go_but_not_those_of_a_stage_inside(self, tmp_path: Path) -> None:
        for place in (tmp_path, tmp_path / "checkpoints", tmp_path / "scores" / "judge"):
            write_text(place / ".x.parquet.4711.tmp", "")
        write_text(tmp_path / "scores" / "judge" / "artifact.json", "{}")
        with exclusive(tmp_path):
            assert [path for path in names(tmp_path) if path.endswith(".tmp")] == [
                ".x.parquet.4711.tmp"
            ]
        assert (tmp_path / "scores" / "judge" / ".x.parquet.4711.tmp").is_file()

    def test_beside_a_file_nothing_but_its_own_half_written_ones_goes(self, tmp_path: Path) -> None:
        others = [".b.html.0a.tmp", ".a.html.x.tmp", "below/.a.html.0a.tmp", ".tmpGUhu5I"]
        for name in (".a.html.0a.tmp", ".a.html.lock.break.1.0a", *others):
            write_text(tmp_path / name, "")
        with exclusive(tmp_path / "a.html", beside=True):
            left = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.*")}
            assert left == {".a.html.lock", *others}
        assert ".a.html.lock" not in names(tmp_path)

    @pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
    def test_a_folder_that_may_not_be_written_is_named(self, tmp_path: Path) -> None:
        tmp_path.chmod(0o500)
        with pytest.raises(TastemakerError, match="cannot write"), exclusive(tmp_path / "out"):
            pass


class TestClaims:
    @pytest.mark.parametrize("error", [TastemakerError("no such model"), KeyboardInterrupt()])
    def test_a_command_that_fails_before_its_first_result_claims_nothing(
        self, tmp_path: Path, error: BaseException
    ) -> None:
        artifact = Artifact(tmp_path / "runs" / "policy", "train", {"steps": 3})

        def refused() -> None:
            with artifact.claimed():
                write_text(artifact.folder / "logs" / "events", "started")
                shutil.rmtree(artifact.folder / "logs")
                raise error

        with pytest.raises(type(error)):
            refused()
        assert names(tmp_path) == []
        made(Artifact(artifact.folder, "train", {"steps": 4}), "model")

    def test_results_keep_the_claim(self, tmp_path: Path) -> None:
        artifact = Artifact(tmp_path, "generate", {"seed": 1})

        def failing() -> None:
            with artifact.claimed():
                write_text(tmp_path / "shard", "x")
                raise TastemakerError("later")

        with pytest.raises(TastemakerError, match="later"):
            failing()
        with pytest.raises(TastemakerError, match="seed: 1 there, 2 now"):
            made(Artifact(tmp_path, "generate", {"seed": 2}))

    def test_files_of_nobody_are_not_taken_for_results(self, tmp_path: Path) -> None:
        write_text(tmp_path / "candidates-00000.parquet", "x")
        with pytest.raises(TastemakerError, match="has candidates-00000.parquet and no"):
            made(Artifact(tmp_path, "generate", {}))

    def test_a_folder_that_was_moved_away_is_not_finished(self, tmp_path: Path) -> None:
        artifact = Artifact(tmp_path / "pool", "generate", {})

        def moved() -> None:
            with artifact.claimed():
                write_text(artifact.folder / "a", "a")
                artifact.folder.rename(tmp_path / "elsewhere")
                write_text(artifact.folder / "b", "b")
                artifact.finish()

        with pytest.raises(TastemakerError, match="was moved"):
            moved()
        assert names(artifact.folder) == ["b"]


class TestCounted:
    @pytest.mark.parametrize(
        ("harm", "says"),
        [
            (lambda file: file.unlink(), "is missing"),
            (lambda file: file.write_text("b" * 3), "is truncated"),
            (lambda file: file.write_text("X"), "is damaged"),
        ],
        ids=["missing", "truncated", "damaged"],
    )
    def test_what_is_amiss_is_named_and_made_again(
        self, tmp_path: Path, harm: object, says: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        artifact = Artifact(tmp_path, "generate", {})
        made(artifact, "a", "b")
        assert callable(harm)
        harm(tmp_path / "b")
        with pytest.raises(TastemakerError, match=f"b {says}.*run the command that made"):
            finished_key(tmp_path, whole=True)
        with artifact.claimed() as unfinished:
            assert unfinished
            assert not (tmp_path / "b").exists()
            assert (tmp_path / "a").exists()
            write_text(tmp_path / "b", "b")
            artifact.finish()
        assert says in capsys.readouterr().out
        assert finished_key(tmp_path, whole=True) == artifact.key

    def test_what_no_later_command_needs_may_be_deleted(self, tmp_path: Path) -> None:
        artifact = Artifact(tmp_path, "train", {})
        made(artifact, "model", "checkpoints/step-1", "encoded/0/images-00000.safetensors")
        assert list(read_json(tmp_path / "done.json")["files"]) == ["model"]

    @pytest.mark.parametrize("text", ["[1]", "null", "{}", '{"key": 3}', "3", '{"key": "a"'])
    @pytest.mark.parametrize("name", ["done.json", "artifact.json"])
    def test_records_of_another_shape_are_one_clear_error(
        self, tmp_path: Path, name: str, text: str
    ) -> None:
        made(Artifact(tmp_path, "pair", {}), "pairs")
        (tmp_path / name).write_text(text)
        with pytest.raises(TastemakerError, match=name):
            made(Artifact(tmp_path, "pair", {}))

    def test_lines_of_another_shape_are_named_but_a_torn_last_one_left_out(
        self, tmp_path: Path
    ) -> None:
        file = tmp_path / "metrics.jsonl"
        file.write_text('{"step": 1}\n{"step": 2}\n{"ste')
        assert read_json_lines(file, step=int) == [{"step": 1}, {"step": 2}]
        for line in ("[1]", "{}", '{"step": null}', "torn"):
            file.write_text(f'{{"step": 1}}\n{line}\n{{"step": 3}}\n')
            with pytest.raises(TastemakerError, match="line 2"):
                read_json_lines(file, step=int)

    def test_a_record_says_which_field_is_missing(self, tmp_path: Path) -> None:
        (tmp_path / "model.json").write_text(json.dumps({"base": 3}))
        with pytest.raises(TastemakerError, match="no 'base' of type str"):
            read_record(tmp_path / "model.json", base=str)


def test_every_failure_of_the_disk_is_the_same_error(tmp_path: Path) -> None:
    write_text(tmp_path / "file", "")
    with pytest.raises(TastemakerError, match="cannot write"), atomic(tmp_path / "file" / "x"):
        pass
    with (
        pytest.raises(TastemakerError, match="cannot write"),
        atomic(tmp_path / "y") as temporary,
    ):
        temporary.mkdir()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFOs")
def test_what_is_no_file_is_not_replaced_by_one(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(TastemakerError, match="it exists and is not a file"):
        write_text(tmp_path / "fifo", "x")
    assert (tmp_path / "fifo").is_fifo()
