"""Listings of files on disk, so that memory does not grow with their number."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath

from tastemaker.datasets.items import LeftOut
from tastemaker.storage.files import printable
from tastemaker.storage.scratch import scratch_table

SUFFIXES = frozenset({".avif", ".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
"""Endings of image files."""

HIDDEN = "hidden"
FOLDER = "a folder inside, which is not looked into"
OTHER = "of another kind"
UNNAMED = "an image that nothing names"
NO_IMAGE = "a caption without an image"


def passed_over(
    root: Path, reason: Callable[[str], str | None], inside: bool = True
) -> Iterator[LeftOut]:
    """List the files of a folder that a source does not read.

    Args:
        root: The folder.
        reason: From a file's path to why the source does not read it; None where it does.
        inside: Look into folders inside.

    Yields:
        Files in order, and each folder that is not looked into.
    """
    for folder, below, names in os.walk(root):
        place = Path(folder).relative_to(root)
        closed = [name for name in below if name.startswith(".") or not inside]
        below[:] = sorted(set(below) - set(closed))
        for name in sorted((*names, *closed), key=os.fsencode):
            why = reason((place / name).as_posix())
            if name.startswith("."):
                why = HIDDEN
            elif name in closed:
                why = FOLDER
            if why is not None:
                yield LeftOut(printable((place / name).as_posix()), why)


def unnamed(file: Path, names: Iterable[object]) -> Iterator[LeftOut]:
    """List the files of a folder that its metadata file does not name.

    Args:
        file: Metadata file in the folder of the images.
        names: Names in it; values other than text are ignored.
    """
    named = Listing()
    for name in names:
        if isinstance(name, str):
            with contextlib.suppress(UnicodeEncodeError):  # half a character: no file's name
                named.add(PurePosixPath(name).as_posix(), "")

    def reason(place: str) -> str | None:
        if place in named or place == file.name:
            return None
        return UNNAMED if Path(place).suffix.lower() in SUFFIXES else OTHER

    yield from passed_over(file.parent, reason)


class Listing(Mapping[str, str]):
    """Names by key, in the order of the keys' bytes.

    Names that are not valid Unicode are kept unchanged.
    """

    def __init__(self) -> None:
        self._table = scratch_table("key BLOB PRIMARY KEY, name BLOB")

    def __getitem__(self, key: str) -> str:
        """Return a key's name.

        Raises:
            KeyError: It was not added.
        """
        select = "SELECT name FROM items WHERE key = ?"
        found = self._table.execute(select, (os.fsencode(key),)).fetchone()
        if found is None:
            raise KeyError(key)
        return os.fsdecode(found[0])

    def __iter__(self) -> Iterator[str]:
        for (key,) in self._table.execute("SELECT key FROM items ORDER BY key"):
            yield os.fsdecode(key)

    def __len__(self) -> int:
        return int(self._table.execute("SELECT count(*) FROM items").fetchone()[0])

    def add(self, key: str, name: str) -> bool:
        """Add a name; the first name of a key stays.

        Returns:
            True for a new key.
        """
        insert = "INSERT OR IGNORE INTO items VALUES (?, ?)"
        return bool(self._table.execute(insert, (os.fsencode(key), os.fsencode(name))).rowcount)
