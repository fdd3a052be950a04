"""Read files from outside: bytes, text, JSON and tensors.

Every fault is a `TastemakerError` that names the file, its row and the remedy. All limits are far
above the needs of an honest file.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from tastemaker.core.errors import TastemakerError

if TYPE_CHECKING:
    from safetensors import safe_open

MOST_BYTES = 1 << 28
"""Of one file that is read whole; no prompt list and no photograph has a quarter of a gigabyte."""

MOST_LINE = 1 << 24
"""Bytes of one JSON line, and characters of one field of a delimited row."""

MOST_DEPTH = 64
"""Lists and mappings within one another in YAML or JSON."""

MOST_DIGITS = 20
"""Of an integer; 64 bits have as many."""

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)

_UTF_16 = (b"\xff\xfe", b"\xfe\xff")


def require_file(path: Path) -> None:
    """Refuse a path that is not a regular file: a FIFO or a device may never end.

    Raises:
        TastemakerError: It does not exist, cannot be reached, or is of another kind.
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        raise TastemakerError(f"{path} does not exist; check the path.") from None
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from None
    for is_kind, kind in _KINDS:
        if is_kind(mode):
            raise TastemakerError(f"{path} is {kind}; name a file.")


def unreadable(path: Path, error: OSError | ValueError) -> TastemakerError:
    """Say why the system gives no access to a file; `ValueError` is a NUL in its name."""
    why = getattr(error, "strerror", None) or error
    return TastemakerError(f"{path} cannot be read ({why}); check the path and who may read it.")


@contextlib.contextmanager
def open_file(path: Path) -> Iterator[IO[bytes]]:
    """Open a regular file for reading.

    Yields:
        The file; what the system says while it is read is an error of this kind too.

    Raises:
        TastemakerError: As for `require_file`, or the file may not be read.
    """
    require_file(path)
    try:
        with path.open("rb") as file:
            yield file
    except OSError as error:
        raise unreadable(path, error) from None


def read_bytes(path: Path, most: int = MOST_BYTES) -> bytes:
    """Read a regular file whole.

    Args:
        path: The file.
        most: Bytes that it may have.

    Raises:
        TastemakerError: As for `open_file`, or it is larger.
    """
    with open_file(path) as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise TastemakerError(f"{path} has more than {most} bytes, too many to read; split it.")
    return data


def decode_text(data: bytes, where: object) -> str:
    """Decode UTF-8, with or without a byte order mark.

    Args:
        data: The text's bytes.
        where: File, or file and row, for messages.

    Raises:
        TastemakerError: It is in another encoding, or is not text.
    """
    if data.startswith(_UTF_16):
        raise TastemakerError(f"{where} is not UTF-8 text but UTF-16; save it as UTF-8.")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise TastemakerError(
            f"{where} is not UTF-8 text ({error.reason} at byte {error.start}, line {line});"
            " save it as UTF-8."
        ) from None
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise TastemakerError(
            f"{where} is not text: it has a NUL in line {line}; save it as UTF-8."
        )
    return text


def read_text(path: Path, most: int = MOST_BYTES) -> str:
    """Read a text file whole, its line ends as single line feeds.

    Raises:
        TastemakerError: As for `read_bytes` and `decode_text`.
    """
    text = decode_text(read_bytes(path, most), path)
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_lines(path: Path) -> list[str]:
    """Read the lines of a text file.

    Returns:
        Its lines; the line at i is number i + 1.

    Raises:
        TastemakerError: As for `read_text`.
    """
    return read_text(path).split("\n")


def require_unicode(text: str, what: str) -> None:
    r"""Refuse half a character, which no file and no tokenizer takes.

    Args:
        text: As JSON or YAML gave it; their escapes can write half characters.
        what: Its role, for the message.

    Raises:
        TastemakerError: It has a lone surrogate.

    Example:
        >>> require_unicode("a cat", "the prompt")
        >>> require_unicode("cut \ud83d", "the prompt")
        Traceback (most recent call last):
        tastemaker.core.errors.TastemakerError: the prompt is not valid Unicode: half a ...
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise TastemakerError(
            f"{what} is not valid Unicode: half a character at position {error.start}"
            " (a lone surrogate, as a cut emoji leaves); take it out."
        ) from None


@functools.cache
def say_counts(source: str, kept: int, given: int, *counts: tuple[int, str]) -> None:
    """Print, once, how much of a source was taken; nothing if all of it was.

    Args:
        source: Name of the source.
        kept: Number of texts taken.
        given: Number of texts in the source.
        *counts: Number of texts, and the reason; zeros are skipped.
    """
    notes = [f"{number} {what}" for number, what in counts if number]
    if notes:
        print(f"{source}: {kept} of {given} taken; {'; '.join(notes)}")


def parse_json(text: str, where: object) -> Any:
    """Parse JSON.

    Args:
        text: One value.
        where: File, or file and row, for messages.

    Raises:
        TastemakerError: It is not JSON, is nested too deep, or has a number of too many digits.
    """
    try:
        value = json.loads(text, parse_int=bounded_integer)
    except RecursionError:
        raise too_deep(where) from None
    except ValueError as error:
        raise TastemakerError(f"{where} is not JSON: {error}.") from None
    check_depth(value, text, where)
    return value


def check_depth(value: Any, text: str, where: object) -> None:
    """Refuse a value of JSON that is nested too deep for later recursion.

    Args:
        value: Parsed.
        text: Its JSON.
        where: For messages.

    Raises:
        TastemakerError: It is.
    """
    if text.count("[") + text.count("{") > MOST_DEPTH and any(
        depth > MOST_DEPTH for depth, _ in walk(value)
    ):
        raise too_deep(where)


def json_lines(path: Path) -> Iterator[tuple[int, Any]]:
    """Read JSON lines, one in memory at a time; blank lines are skipped.

    Yields:
        A line's number from 1, and its value; or a `TastemakerError`, not raised, that says what is
        wrong with it: one bad line spoils no other.

    Raises:
        TastemakerError: The file cannot be read, is UTF-16, or a line has no end.
    """
    with open_file(path) as file:
        for number in itertools.count(1):
            line = file.readline(MOST_LINE + 1)
            where = f"{path}, line {number}"
            if number == 1 and line.startswith(_UTF_16):
                raise TastemakerError(f"{path} is not UTF-8 text but UTF-16; save it as UTF-8.")
            if len(line) > MOST_LINE:
                raise TastemakerError(
                    f"{where} has more than {MOST_LINE} bytes; write one object per line."
                )
            if not line:
                return
            if line.strip():
                try:
                    yield number, parse_json(decode_text(line, "it"), "it")
                except TastemakerError as error:
                    yield number, error


@contextlib.contextmanager
def open_tensors(path: Path) -> Iterator[safe_open]:
    """Open a safetensors file.

    Yields:
        The file as safetensors gives it, for PyTorch.

    Raises:
        TastemakerError: As for `require_file`, or it is not a whole safetensors file.
    """
    from safetensors import SafetensorError, safe_open

    require_file(path)
    try:
        with safe_open(path, framework="pt") as stored:
            yield stored
    except (SafetensorError, OSError) as error:
        raise TastemakerError(
            f"{path} is not a whole safetensors file ({error}); download or save it again."
        ) from error


def bounded_integer(digits: str) -> int:
    """Read an integer of JSON; Python's own reader takes thousands of digits.

    Raises:
        ValueError: It has more than 64 bits could.
    """
    if len(digits) > MOST_DIGITS:
        raise ValueError(f"it has a number of {len(digits)} digits")
    return int(digits)


def too_deep(where: object) -> TastemakerError:
    """Build the error for values nested deeper than `MOST_DEPTH`."""
    return TastemakerError(f"{where} is nested more than {MOST_DEPTH} levels deep; flatten it.")


def walk(value: Any, depth: int = 1) -> Iterator[tuple[int, Any]]:
    """Yield depth and value of all that a value contains, keys too, one level beyond the limit."""
    yield depth, value
    if depth <= MOST_DEPTH:
        inside: Iterable[Any] = value if isinstance(value, (list, tuple, set)) else ()
        if isinstance(value, dict):
            inside = itertools.chain(value, value.values())
        for each in inside:
            yield from walk(each, depth + 1)
