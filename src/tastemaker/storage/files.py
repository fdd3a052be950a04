"""Atomic files: text and JSON that appear whole or not at all, and configuration hashes."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePath
from typing import Any

from tastemaker.core.errors import TastemakerError
from tastemaker.core.reading import parse_json, read_text

UMASK = os.umask(0o022)
"""The user's file mode mask, which can only be read by setting it."""
os.umask(UMASK)


def temporary_of(path: Path) -> Path:
    """Name the temporary file of `path`; `locks` knows such names after a kill."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary path that becomes `path` when the block ends well.

    Args:
        path: The file to write; its folder is made where missing.

    Yields:
        A path in the same folder, for the caller to write.

    Raises:
        TastemakerError: The disk is full, not writable or gone, or there is a device or
            folder of that name; the half-written file is removed.
    """
    temporary = temporary_of(path)
    try:
        with disk_errors(path):
            if path.exists() and not path.is_file():
                raise OSError(errno.EEXIST, "it exists and is not a file")
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            # Some libraries write for the owner alone.
            temporary.chmod(0o666 & ~UMASK)
            temporary.replace(path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


@contextlib.contextmanager
def written_folder(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder, all of which comes to `folder` when the block ends well.

    Args:
        folder: Target, made if missing. Files and folders of the same names are replaced.

    Yields:
        An empty folder inside, for the caller to fill.

    Raises:
        TastemakerError: The disk is full, not writable or gone; what was written is removed.
    """
    temporary = temporary_of(folder / "whole")
    try:
        with disk_errors(folder):
            temporary.mkdir(parents=True)
            yield temporary
            for part in sorted(temporary.iterdir()):
                if (folder / part.name).is_dir():
                    shutil.rmtree(folder / part.name)
                part.replace(folder / part.name)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Raise one error for all that the system or safetensors raises while writing.

    Args:
        path: The file, for the message.

    Raises:
        DiskError: The block raised an `OSError`, a `SafetensorError` or SQLite's error.
    """
    try:
        yield
    except Exception as error:
        # By name: the libraries are not imported for it, and their errors have no common base.
        others = {"SafetensorError", "OperationalError"}
        if not isinstance(error, OSError) and type(error).__name__ not in others:
            raise
        why = getattr(error, "strerror", None) or error
        raise DiskError(
            f"cannot write {path}: {why}. Free some space or choose another folder,"
            " then run the same command again: finished files are kept."
        ) from error


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, data: Any) -> None:
    """Write JSON atomically, indented, keys in the order given; NaN is refused."""
    write_text(path, json.dumps(data, indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        TastemakerError: The file is missing or torn.
    """
    return parse_json(read_text(path), path)


def read_record(path: Path, **fields: type) -> dict[str, Any]:
    """Read a JSON object that this package wrote.

    Args:
        path: The file.
        **fields: Keys that it must have, with the type of each value.

    Returns:
        The object, whatever else it has.

    Raises:
        TastemakerError: The file is missing, torn, or of another shape.
    """
    return _shaped(read_json(path), path, "", fields)


def _shaped(data: Any, path: Path, where: str, fields: Mapping[str, type]) -> dict[str, Any]:
    """Return a JSON object that has the fields."""
    if not isinstance(data, dict):
        raise damaged(path, f"{where}not an object but {type(data).__name__}")
    for name, kind in fields.items():
        if not isinstance(data.get(name), kind):
            raise damaged(path, f"{where}no {name!r} of type {kind.__name__}")
    return data


class DiskError(TastemakerError):
    """A file could not be written."""


class DamagedError(TastemakerError):
    """A file that this package wrote is not what it wrote."""


def damaged(path: Path, why: str) -> DamagedError:
    """Build the error, with its remedy, for a damaged file of this package."""
    return DamagedError(
        f"{path} is damaged or not of this program ({why}). Restore it, or delete it and run"
        " the command that made it again."
    )


def leads_out(name: str) -> bool:
    """Return whether a file name in somebody's data leads out of its folder or archive.

    Example:
        >>> leads_out("images/a.png"), leads_out("../a.png"), leads_out("/etc/a.png")
        (False, True, True)
    """
    place = PurePath(name)
    return place.is_absolute() or bool(place.drive) or ".." in place.parts


def printable(name: str) -> str:
    """Escape what is not valid Unicode in a file's name, for files and terminals."""
    return name.encode("utf-8", "backslashreplace").decode()


def read_json_lines(path: Path, **fields: type) -> list[dict[str, Any]]:
    """Read a file of one JSON object per line that this package wrote.

    Args:
        path: The file; missing reads as empty.
        **fields: Keys that each object must have, with the type of each value.

    Returns:
        The objects; a last line that is torn, as a process that was killed leaves it, is left out.

    Raises:
        TastemakerError: Any other line is torn or of another shape.
    """
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            if number == len(lines):  # what follows the last line feed
                break
            raise damaged(path, f"line {number}: not JSON") from None
        rows.append(_shaped(row, path, f"line {number}: ", fields))
    return rows


def config_key(*parts: Any) -> str:
    """Hash resolved configuration and inputs: the identity of a finished stage.

    Args:
        *parts: JSON-like values.

    Returns:
        16 hex digits.
    """
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
