"""Read what others wrote: bytes, text, YAML, JSON, delimited rows and tensors.

Whatever is wrong with such a file ends in a `TastemakerError` that names the file, the row where
there are rows, and the remedy. Every limit is far above what an honest file needs.
"""

from __future__ import annotations

import contextlib
import csv
import functools
import io
import itertools
import json
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from tastemaker.core.errors import TastemakerError

if TYPE_CHECKING:
    from safetensors import safe_open

MOST_BYTES = 1 << 28
"""Of one file that is read whole; no prompt list and no photograph has a quarter of a gigabyte."""

MOST_YAML = 1 << 20
"""Bytes of a YAML file: a megabyte takes seconds to parse."""

MOST_LINE = 1 << 24
"""Bytes of one JSON line, and characters of one field of a delimited row."""

MOST_DEPTH = 64
"""Lists and mappings within one another in YAML or JSON."""

MOST_NODES = 100_000
"""Values in YAML, those behind an alias counted wherever it stands."""

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
    """Decode UTF-8, with or without a mark at its beginning.

    Args:
        data: The text's bytes.
        where: File, or file and row, for messages.

    Raises:
        TastemakerError: It is in another encoding, or is no text.
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
        raise TastemakerError(f"{where} is no text: it has a NUL in line {line}; save it as UTF-8.")
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
        Its lines as they stand; the line at i is number i + 1.

    Raises:
        TastemakerError: As for `read_text`.
    """
    return read_text(path).split("\n")


def require_unicode(text: str, what: str) -> None:
    r"""Refuse text that no file and no tokenizer takes: half a character.

    Args:
        text: As JSON or YAML gave it; their escapes can write what no text file holds.
        what: What it is, for the message.

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
    """Print, once, what of a source was not taken as it stands; nothing where all of it was.

    Args:
        source: What was read.
        kept: How many texts were taken.
        given: How many the source has.
        *counts: How many, and what became of them; zeros are passed over.
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
        TastemakerError: It is not JSON, is nested too deep, or holds a number of too many digits.
    """
    try:
        value = json.loads(text, parse_int=bounded_integer)
    except RecursionError:
        raise _too_deep(where) from None
    except ValueError as error:
        raise TastemakerError(f"{where} is not JSON: {error}.") from None
    check_depth(value, text, where)
    return value


def check_depth(value: Any, text: str, where: object) -> None:
    """Refuse a value of JSON that is nested too deep for what goes through it later.

    Args:
        value: Parsed.
        text: What it was parsed from.
        where: For messages.

    Raises:
        TastemakerError: It is.
    """
    if text.count("[") + text.count("{") > MOST_DEPTH and _is_deep(value):
        raise _too_deep(where)


def json_lines(path: Path) -> Iterator[tuple[int, Any]]:
    """Read JSON lines, one in memory at a time; blank lines are passed over.

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
                    f"{where} has more than {MOST_LINE} bytes; write an object a line."
                )
            if not line:
                return
            if line.strip():
                try:
                    yield number, parse_json(decode_text(line, "it"), "it")
                except TastemakerError as error:
                    yield number, error


def parse_yaml(text: str, where: object) -> Any:
    """Parse YAML of plain values; dates stay text, and no key may stand twice.

    Args:
        text: One document.
        where: File or option, for messages.

    Raises:
        TastemakerError: It is not YAML, names a key twice, or is larger or deeper than any
            configuration, also by aliases of aliases.
    """
    import yaml

    try:
        value = yaml.load(text, _loader())  # a SafeLoader of ours
    except RecursionError:
        raise _too_deep(where) from None
    # Beside its own errors PyYAML lets through what Python says of numbers, bytes and dates.
    except (
        yaml.YAMLError,
        ArithmeticError,
        AttributeError,
        LookupError,
        TypeError,
        ValueError,
    ) as error:
        raise TastemakerError(f"{where} is not readable as YAML: {_yaml_fault(error)}.") from None
    _check_values(value, where)
    return value


def read_yaml(path: Path) -> Any:
    """Read a YAML file.

    Raises:
        TastemakerError: As for `read_text` and `parse_yaml`.
    """
    return parse_yaml(read_text(path, MOST_YAML), path)


def delimited_rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Read the rows of a .csv or .tsv file with a header; blank ones are passed over.

    In a .tsv, where many programs write quotes as they are, quotes that do not come in pairs are
    taken for plain characters.

    Yields:
        The line at which a row ends, from 1, and its fields by column.

    Raises:
        TastemakerError: As for `read_text`; a quote that is not closed, a row with more fields
            than the header, or a column that is there twice.
    """
    text = decode_text(read_bytes(path), path)
    mark = "\t" if path.suffix.lower() == ".tsv" else ","
    try:
        try:
            rows = _split(text, mark, csv.QUOTE_MINIMAL)
        except csv.Error:
            if mark != "\t":
                raise
            rows = _split(text, mark, csv.QUOTE_NONE)
    except csv.Error as error:
        raise TastemakerError(
            f"{path}, {error}; close every quote, and double those within a field."
        ) from None
    header = rows[0][1] if rows else []
    twice = next((name for name in header if header.count(name) > 1), None)
    if twice is not None:
        raise TastemakerError(f"{path} has the column {twice!r} twice; rename one.")
    for number, fields in rows[1:]:
        if any(fields[len(header) :]):
            raise TastemakerError(
                f"{path}, line {number} has {len(fields)} fields, but the header {len(header)};"
                " put a field that holds the separator in quotes."
            )
        yield number, dict(zip(header, fields, strict=False))


@contextlib.contextmanager
def open_tensors(path: Path) -> Iterator[safe_open]:
    """Open a safetensors file.

    Yields:
        The file as safetensors gives it, for PyTorch.

    Raises:
        TastemakerError: As for `require_file`, or it is no whole safetensors file.
    """
    from safetensors import SafetensorError, safe_open

    require_file(path)
    try:
        with safe_open(path, framework="pt") as stored:
            yield stored
    except (SafetensorError, OSError) as error:
        raise TastemakerError(
            f"{path} is no whole safetensors file ({error}); download or save it again."
        ) from error


DATE = "tag:yaml.org,2002:timestamp"


@functools.cache
def _loader() -> Any:
    """PyYAML's loader of plain values, without repeated keys and merges without end.

    Dates are texts, and so are numbers that mean something else in YAML 1.1, PyYAML's, where 010 is
    eight and 1:30 is ninety. What is left out is quoted when written.
    """
    import yaml

    numbers = {
        "tag:yaml.org,2002:int": r"[-+]?(0|[1-9][0-9]*)$|0x[0-9a-fA-F]+$",
        "tag:yaml.org,2002:float": r"[-+]?(\.[0-9]+|(0|[1-9][0-9]*)\.[0-9]*)([eE][-+][0-9]+)?$"
        r"|[-+]?\.(inf|Inf|INF)$|\.(nan|NaN|NAN)$",
    }

    class Loader(yaml.SafeLoader):
        yaml_implicit_resolvers = {  # noqa: RUF012
            first: [each for each in found if each[0] not in {*numbers, DATE}]
            for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
        }

        def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
            node: yaml.MappingNode = super().compose_mapping_node(anchor)
            seen = set()
            for key, _ in node.value:
                if isinstance(key, yaml.ScalarNode) and key.value != "<<":
                    if key.value in seen:
                        raise ValueError(
                            f"the key {key.value!r} stands twice, again in line"
                            f" {key.start_mark.line + 1}; keep one"
                        )
                    seen.add(key.value)
            return node

        def flatten_mapping(self, node: yaml.MappingNode) -> None:
            super().flatten_mapping(node)
            if len(node.value) > MOST_NODES:  # each level of merges may double it
                raise ValueError(f"merges (<<) give more than {MOST_NODES} keys")

    for tag, form in numbers.items():
        Loader.add_implicit_resolver(tag, re.compile(form), list("-+.0123456789"))
    return Loader


def _yaml_fault(error: Exception) -> str:
    """What PyYAML says, in one line: the problem and where it is."""
    problem, mark = getattr(error, "problem", None), getattr(error, "problem_mark", None)
    if problem is None or mark is None:
        return " ".join(str(error).split())
    return f"{problem} (line {mark.line + 1}, column {mark.column + 1})"


def bounded_integer(digits: str) -> int:
    """Read an integer of JSON; Python's own reader takes thousands of digits.

    Raises:
        ValueError: It has more than 64 bits could.
    """
    if len(digits) > MOST_DIGITS:
        raise ValueError(f"it holds a number of {len(digits)} digits")
    return int(digits)


def _too_deep(where: object) -> TastemakerError:
    return TastemakerError(f"{where} is nested more than {MOST_DEPTH} levels deep; flatten it.")


def _walk(value: Any) -> Iterator[tuple[int, Any]]:
    """Depth and value of all that a value holds, keys too; deeper than the limit it ends."""
    waiting = [iter((value,))]
    while waiting:
        held = next(waiting[-1], waiting)
        if held is waiting:
            waiting.pop()
            continue
        yield len(waiting), held
        if len(waiting) > MOST_DEPTH:
            return
        if isinstance(held, dict):
            waiting.append(itertools.chain(held, held.values()))
        elif isinstance(held, (list, tuple, set)):
            waiting.append(iter(held))


def _is_deep(value: Any) -> bool:
    return any(depth > MOST_DEPTH for depth, _ in _walk(value))


def _check_values(value: Any, where: object) -> None:
    """Refuse what is no configuration: too deep or too much, numbers and text that are none."""
    for number, (depth, held) in enumerate(_walk(value)):
        if depth > MOST_DEPTH:
            raise _too_deep(where)
        if number == MOST_NODES:
            raise TastemakerError(f"{where} holds more than {number} values; is it a run's file?")
        if isinstance(held, str):
            require_unicode(held, str(where))
        elif isinstance(held, int) and abs(held) >= 10**MOST_DIGITS:
            raise TastemakerError(f"{where} holds a number of more than {MOST_DIGITS} digits.")


def _split(text: str, mark: str, quoting: Any) -> list[tuple[int, list[str]]]:
    """Rows that are not blank, each with the number of its last line.

    Raises:
        csv.Error: A quote is not closed or stands where none may; it begins with the line.
    """
    csv.field_size_limit(MOST_LINE)
    lines = io.StringIO(text, newline="")
    reader = csv.reader(lines, delimiter=mark, quoting=quoting, strict=True)
    rows = []
    end = 0
    try:
        for fields in reader:
            end = reader.line_num
            if len(fields) > 1 or "".join(fields).strip():
                rows.append((end, fields))
    except csv.Error as error:
        raise csv.Error(f"the row from line {end + 1} on: {error}") from None
    return rows
