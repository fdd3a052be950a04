"""However a command ends, its user reads one sentence; tracebacks go to a log that it names."""

from __future__ import annotations

import builtins
import errno
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from tastemaker.cli.endings import status_of
from tastemaker.core.errors import TastemakerError
from tastemaker.core.plugins import load_plugins


def _raise(error: BaseException) -> Callable[[], int]:
    def command() -> int:
        raise error

    return command


def _deep() -> int:
    return _deep()


ENDINGS: dict[str, tuple[Callable[[], int | None], int, str]] = {
    "well": (lambda: None, 0, ""),
    "found problems": (lambda: 1, 1, ""),
    "a mistake": (_raise(TastemakerError("the path is wrong")), 2, "the path is wrong"),
    "Ctrl-C": (_raise(KeyboardInterrupt()), 130, "to go on: tastemaker run 'my run.yaml' seed=1"),
    "SIGTERM": (_raise(SystemExit(143)), 143, "to go on: tastemaker run 'my run.yaml' seed=1"),
    "left": (_raise(SystemExit(0)), 70, r"SystemExit: 0"),
    "a fault": (_raise(KeyError("x")), 70, "KeyError: 'x'.*please report it; the traceback is in"),
    "a fault without words": (_raise(ValueError()), 70, r"\(ValueError\)"),
    "too deep": (_deep, 70, "RecursionError"),
    "lines": (_raise(ValueError("a\nb")), 70, "ValueError: a b"),
    "a full disk": (_raise(OSError(errno.ENOSPC, "No space left", "/x")), 2, "/x: No space left"),
    "memory": (_raise(MemoryError()), 2, "lower height"),
    "memory of a GPU": (_raise(torch.OutOfMemoryError("CUDA out of memory")), 2, "lower height"),
    "a tensor": (lambda: torch.empty(1 << 60) and 0, 2, "lower height"),
    "a tensor beyond numbers": (lambda: torch.empty(1 << 40, 1 << 40) and 0, 2, "lower height"),
    "an array": (lambda: np.empty(1 << 58) and 0, 2, "lower height"),
}


@pytest.mark.parametrize("what", ENDINGS)
def test_every_ending(what: str, capsys: pytest.CaptureFixture[str]) -> None:
    command, status, words = ENDINGS[what]
    assert status_of(command, ("run", "my run.yaml", "seed=1")) == status
    said = capsys.readouterr().err
    assert re.search(words, said)
    assert said.count("\n") == bool(words)
    named = re.search(r"traceback is in (\S+)", said)
    assert (named is not None) == (bool(words) and what not in {"a mistake", "Ctrl-C", "SIGTERM"})
    if named:
        log = Path(named[1])
        assert "Traceback" in log.read_text(encoding="utf-8")
        log.unlink()


def test_a_reader_that_has_seen_enough_hears_nothing() -> None:
    script = "import sys; from tastemaker.cli.command_line import main; sys.exit(main(['doctor']))"
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([sys.executable, "-c", script], stdout=write, stderr=subprocess.PIPE)
    os.close(write)
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("import sys\nsys.exit(0)", r"ends the program when it is imported \(sys\.exit\(0\)\)"),
        ("raise SystemExit", "ends the program"),
        ("\nx = 1 / 0", "line 2, failed to import: ZeroDivisionError"),
        ("def f(: pass", "SyntaxError"),
        ("def f(): f()\nf()", "RecursionError"),
        ("class Odd(BaseException): pass\nraise Odd", "line 2, failed to import: Odd"),
    ],
)
def test_plugins_that_do_not_load_are_named(tmp_path: Path, code: str, words: str) -> None:
    (tmp_path / "mine.py").write_text(code, encoding="utf-8")
    with pytest.raises(TastemakerError, match=rf"mine\.py'.*{words}"):
        load_plugins((str(tmp_path / "mine.py"),))


@pytest.mark.timeout(10)
def test_plugins_that_are_no_files_are_named(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.py")
    for name in ("fifo.py", "", "x" * 300):
        with pytest.raises(TastemakerError, match="plugin"):
            load_plugins((str(tmp_path / name),))


def test_what_fails_in_a_plugin_is_named_by_its_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.py").write_text(
        "import builtins\n"
        "def divides(number):\n"
        "    return number / 0\n"
        "builtins.divides = divides\n",
        encoding="utf-8",
    )
    load_plugins((str(tmp_path / "mine.py"),))
    divides = builtins.__dict__.pop("divides")
    assert status_of(lambda: divides(1)) == 2
    words = r"mine\.py', line 3, failed \(ZeroDivisionError: division by zero\)"
    assert re.search(words, capsys.readouterr().err)
