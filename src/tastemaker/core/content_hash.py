"""Identity of files by what is in them: a file replaced under its path is another input.

Size and times are a shortcut, kept between commands in the user's cache, and never the truth: a
file that changed within `RACY_SECONDS` before it was read may have changed again within the same
tick of its file system's clock, so that it is always read again.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import hashlib
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tastemaker.core.errors import TastemakerError
from tastemaker.core.hub import hub_file
from tastemaker.core.reading import require_file, unreadable

RACY_SECONDS = 2.0
"""The coarsest clock of a file system in use, FAT's."""

KEPT_DAYS = 90
"""Hashes older than this are dropped, so that the cache does not grow for ever."""

BATCH = 1000
"""Hashes that are committed together."""


def file_content(path: Path) -> str:
    """Hash the content of a file.

    Args:
        path: A regular file.

    Returns:
        32 hex digits.

    Raises:
        TastemakerError: It is missing or cannot be read, or changes while it is read.
    """
    require_file(path)
    try:
        return _hashes().of(path)
    except OSError as error:
        raise unreadable(path, error) from None


def contents(files: Iterable[Path]) -> dict[str, Any]:
    """Describe files by name, in their order, and content: any number, one in memory at a time.

    Args:
        files: Paths.

    Returns:
        Their number, bytes, and one hash, JSON-like.
    """
    digest = hashlib.blake2b(digest_size=16)
    number = size = 0
    for file in files:
        try:
            content, held = file_content(file), file.stat().st_size
        except TastemakerError:  # a FIFO, or not readable: whoever takes the files says so
            content, held = "", 0
        digest.update(f"{os.fsencode(file).hex()} {content}\n".encode())
        number, size = number + 1, size + held
    return {"files": number, "bytes": size, "content": digest.hexdigest()}


def folder_content(folder: Path, names: Iterable[str] | None = None) -> str:
    """Hash the content of a folder: names below it, and what is in each file.

    Args:
        folder: The folder; hidden files in it do not count.
        names: Files and folders in it that count; None for all.

    Returns:
        32 hex digits, the same for a copy elsewhere.

    Raises:
        TastemakerError: As for `file_content`.
    """
    digest = hashlib.blake2b(digest_size=16)
    for file in files_below(folder, names):
        digest.update(f"{file.relative_to(folder).as_posix()!r} {file_content(file)}\n".encode())
    return digest.hexdigest()


def weights_content(name: str, marker: str, path: str | None = None) -> dict[str, str]:
    """Describe weights by a hash of what is here, or by their commit on the hub.

    Args:
        name: A path, or a repository of the hub.
        marker: A file that the repository has; it is fetched where it is not here.
        path: The name as a path, where it is another.

    Returns:
        `content` or `revision`; empty where there is neither: what loads them says so.

    Raises:
        TastemakerError: A file cannot be read.
    """
    here = Path(path or name).expanduser()
    if here.exists():
        return {"content": folder_content(here) if here.is_dir() else file_content(here)}
    if name.count("/") != 1:
        return {}
    try:
        file = hub_file(name, name, marker)
    except TastemakerError:
        return {}
    # snapshots/COMMIT/marker, where the marker may lie in folders of its own
    return {"revision": file.parents[marker.count("/")].name}


def files_below(folder: Path, names: Iterable[str] | None = None) -> Iterator[Path]:
    """List the files below a folder in the order of their names; hidden ones are passed over.

    Args:
        folder: The folder.
        names: Files and folders in it to list; None for all.
    """
    for name in sorted(os.listdir(folder) if names is None else names):
        path = folder / name
        if name.startswith("."):
            continue
        if path.is_dir():
            yield from files_below(path)
        elif path.is_file():
            yield path


class _Hashes:
    """Content hashes by path: an SQLite file in the user's cache, temporary if not writable."""

    def __init__(self) -> None:
        root = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
        place = Path(root).expanduser() / "tastemaker" / "contents.sqlite"
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            self._table = _opened(str(place))
        except (OSError, sqlite3.Error):
            self._table = _opened("")  # a file of SQLite's own, gone with the process
        self._new: dict[bytes, tuple[str, float, str]] = {}
        atexit.register(self._flush)

    def of(self, path: Path) -> str:
        """Return the hash of a file's content: known, or read from the file."""
        key = hashlib.blake2b(os.fsencode(os.path.abspath(path)), digest_size=12).digest()
        for _ in range(3):
            state, changed = _state(path)
            known = self._known(key)
            if known is not None and known[0] == state:
                return known[1]
            read = time.time()
            with path.open("rb") as file:
                content = hashlib.file_digest(file, _hash).hexdigest()
            if _state(path) == (state, changed):
                if read > changed + RACY_SECONDS:
                    self._new[key] = (state, read, content)
                    if len(self._new) >= BATCH:
                        self._flush()
                return content
        raise TastemakerError(f"{path} changes while it is read; wait until it is written.")

    def _known(self, key: bytes) -> tuple[str, str] | None:
        """State and hash of a path."""
        if key in self._new:
            state, _, content = self._new[key]
            return state, content
        try:
            select = "SELECT state, content FROM hashes WHERE path = ?"
            found: tuple[str, str] | None = self._table.execute(select, (key,)).fetchone()
        except sqlite3.Error:  # locked or damaged: nothing is known
            return None
        return found

    def _flush(self) -> None:
        rows = [(key, *values) for key, values in self._new.items()]
        self._new = {}
        insert = "INSERT OR REPLACE INTO hashes VALUES (?, ?, ?, ?)"
        with contextlib.suppress(sqlite3.Error), self._table:
            self._table.executemany(insert, rows)


def _opened(place: str) -> sqlite3.Connection:
    """Open a table of hashes, without those that are too old."""
    table = sqlite3.connect(place, timeout=1, check_same_thread=False)
    create = "path BLOB PRIMARY KEY, state TEXT, read REAL, content TEXT"
    with table:
        table.execute(f"CREATE TABLE IF NOT EXISTS hashes ({create}) WITHOUT ROWID")
        table.execute("DELETE FROM hashes WHERE read < ?", (time.time() - KEPT_DAYS * 86400,))
    return table


def _hash() -> Any:
    return hashlib.blake2b(digest_size=16)


def _state(path: Path) -> tuple[str, float]:
    """State of a file that any change alters, and the time of its last change, in seconds."""
    held = path.stat()
    times = (held.st_mtime_ns, held.st_ctime_ns)
    return f"{held.st_dev} {held.st_ino} {held.st_size} {times}", max(times) / 1e9


@functools.cache
def _hashes() -> _Hashes:
    return _Hashes()
