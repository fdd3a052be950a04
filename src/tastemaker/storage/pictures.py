"""Pictures that were seen before, by the hash of their pixels: on disk, for memory to stay flat."""

from __future__ import annotations

from tastemaker.storage.scratch import scratch_table


class Pictures:
    """Where each picture of a source stands, and in which part of a split."""

    def __init__(self) -> None:
        self._table = scratch_table(
            "picture BLOB, part INTEGER, place TEXT, PRIMARY KEY (picture, part)"
        )

    def close(self) -> None:
        """Remove the table."""
        self._table.close()

    def add(self, picture: str, where: str, part: int = 0) -> None:
        """Keep a picture; of one that is there already in this part, the first place stays.

        Args:
            picture: Hash of its pixels, as hex digits.
            where: Where it stands.
            part: Part of a split.
        """
        self._table.execute(
            "INSERT OR IGNORE INTO held VALUES (?, ?, ?)", (bytes.fromhex(picture), part, where)
        )

    def where(self, picture: str) -> str | None:
        """Return where a picture stands, or None where it was not seen."""
        found = self._table.execute(
            "SELECT place FROM held WHERE picture = ?", (bytes.fromhex(picture),)
        ).fetchone()
        return None if found is None else str(found[0])

    def elsewhere(self, picture: str, part: int) -> tuple[int, str] | None:
        """Return the first part but this that holds a picture, and where it stands there."""
        found = self._table.execute(
            "SELECT part, place FROM held WHERE picture = ? AND part != ? ORDER BY part",
            (bytes.fromhex(picture), part),
        ).fetchone()
        return None if found is None else (int(found[0]), str(found[1]))
