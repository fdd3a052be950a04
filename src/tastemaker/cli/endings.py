"""Exit status of a command, and one sentence where it did not end well."""

from __future__ import annotations

import os
import shlex
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence

from tastemaker.core.errors import TastemakerError
from tastemaker.core.plugins import PLUGIN

MISTAKE = 2
"""Exit status of what the user can mend."""

FAULT = 70
"""Exit status of a fault in this program, in a library or in a plugin (EX_SOFTWARE)."""

INTERRUPTED = 130
TERMINATED = 143
BROKEN_PIPE = 141

_NO_MEMORY = ("can't allocate memory", "not enough memory", "overflow when unpacking", "overflowed")
"""Texts of torch's plain errors for sizes that no machine has."""


def status_of(command: Callable[[], int | None], words: Sequence[str] = ()) -> int:
    """Run a command to its end, and say in one sentence why if that was not a good one.

    Args:
        command: Returns the exit status, None for 0.
        words: Its words on the command line, which are repeated where it was stopped.

    Returns:
        The status. Anything that is not a `TastemakerError` leaves its traceback in a log file in
        the system's folder for temporary files, which the sentence names.
    """
    try:
        return command() or 0
    except TastemakerError as error:
        return _say(str(error), MISTAKE)
    except KeyboardInterrupt:
        return _stopped(INTERRUPTED, words)
    except BrokenPipeError:  # `tastemaker doctor | head`: whoever read the output has seen enough
        _discard_output()
        return BROKEN_PIPE
    except SystemExit as error:
        return _stopped(TERMINATED, words) if error.code == TERMINATED else _unexpected(error)
    except BaseException as error:
        return _unexpected(error)


def _unexpected(error: BaseException) -> int:
    text = " ".join(str(error).split())
    if _is_memory(error, text):
        return _say(
            f"memory that cannot be had ({_short(text) or type(error).__name__}); lower height,"
            f" width, batch_size or num_candidates, or take a larger machine; {_log()}",
            MISTAKE,
        )
    if isinstance(error, OSError) and error.strerror:
        where = f" {error.filename}:" if error.filename is not None else ""
        return _say(
            f"{where} {error.strerror}; check the path, its permissions and the free space, then"
            f" run the same command again; {_log()}".strip(),
            MISTAKE,
        )
    what = f"{type(error).__name__}: {_short(text)}" if text else type(error).__name__
    plugin = _plugin_line(error)
    if plugin:
        return _say(f"{plugin} failed ({what}); mend it there; {_log()}", MISTAKE)
    return _say(f"a fault that is not yours ({what}); please report it; {_log()}", FAULT)


def _stopped(status: int, words: Sequence[str]) -> int:
    again = shlex.join(["tastemaker", *words])
    return _say(f"stopped, and what was done is kept; to go on: {again}", status)


def _plugin_line(error: BaseException) -> str:
    """File and line of the user's own plugin in which an error arose; empty where in none."""
    trace = error.__traceback__
    places = []
    while trace is not None:
        if str(trace.tb_frame.f_globals.get("__name__")).startswith(PLUGIN):
            places.append(f"plugin {trace.tb_frame.f_code.co_filename!r}, line {trace.tb_lineno},")
        trace = trace.tb_next
    return places[-1] if places else ""


def _is_memory(error: BaseException, text: str) -> bool:
    kind = type(error).__name__  # by name, since torch may not be loaded
    return (
        isinstance(error, MemoryError)
        or kind == "OutOfMemoryError"
        or (isinstance(error, RuntimeError) and any(each in text for each in _NO_MEMORY))
    )


def _short(text: str) -> str:
    return text if len(text) <= 300 else f"{text[:300]} ..."


def _say(sentence: str, status: int) -> int:
    print(f"tastemaker: {sentence}", file=sys.stderr)
    return status


def _log() -> str:
    """Write the traceback of what is being handled to a file, and name it."""
    try:
        number, path = tempfile.mkstemp(prefix="tastemaker-", suffix=".log")
        with open(number, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(f"{sys.argv}\n{traceback.format_exc()}")
    except OSError as error:
        return f"no traceback is kept, since no log could be written ({error.strerror})."
    return f"the traceback is in {path}"


def _discard_output() -> None:
    """Point the output at nothing: Python flushes it once more when it ends."""
    try:
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, sys.stdout.fileno())
        os.close(nothing)
    except (OSError, ValueError):  # no file behind it, as in a notebook
        pass
