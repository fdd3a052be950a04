"""Names of files, however many: on disk, for memory to stay flat."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping

from tastemaker.scratch import scratch_table


class Listing(Mapping[str, str]):
    """Names by key, in the order of the keys' bytes.

    Names that are no valid Unicode are kept as they are.
    """

    def __init__(self) -> None:
        self._table = scratch_table("key BLOB PRIMARY KEY, name BLOB")

    def __getitem__(self, key: str) -> str:
        """Return a key's name.

        Raises:
            KeyError: It was not added.
        """
        select = "SELECT name FROM held WHERE key = ?"
        found = self._table.execute(select, (os.fsencode(key),)).fetchone()
        if found is None:
            raise KeyError(key)
        return os.fsdecode(found[0])

    def __iter__(self) -> Iterator[str]:
        for (key,) in self._table.execute("SELECT key FROM held ORDER BY key"):
            yield os.fsdecode(key)

    def __len__(self) -> int:
        return int(self._table.execute("SELECT count(*) FROM held").fetchone()[0])

    def add(self, key: str, name: str) -> bool:
        """Keep a name; of a key that is there already the first name stays.

        Returns:
            Whether the key is new.
        """
        insert = "INSERT OR IGNORE INTO held VALUES (?, ?)"
        return bool(self._table.execute(insert, (os.fsencode(key), os.fsencode(name))).rowcount)
