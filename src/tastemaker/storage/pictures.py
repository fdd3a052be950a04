"""Pictures seen before, by the hash of their pixels, on disk so that memory stays flat."""

from __future__ import annotations

from tastemaker.storage.scratch import scratch_table


class Pictures:
    """Index of a source's pictures: the first place of each, per part of a split."""

    def __init__(self) -> None:
        self._table = scratch_table(
            "picture BLOB, part INTEGER, place TEXT, PRIMARY KEY (picture, part)"
        )

    def close(self) -> None:
        """Remove the table."""
        self._table.close()

    def add(self, picture: str, where: str, part: int = 0) -> None:
        """Add a picture; one that is in this part already keeps its first place.

        Args:
            picture: Hash of its pixels, as hex digits.
            where: Its place, such as file and row.
            part: Part of a split.
        """
        self._table.execute(
            "INSERT OR IGNORE INTO items VALUES (?, ?, ?)", (bytes.fromhex(picture), part, where)
        )

    def where(self, picture: str) -> str | None:
        """Return the place of a picture, or None if it was not seen."""
        found = self._table.execute(
            "SELECT place FROM items WHERE picture = ?", (bytes.fromhex(picture),)
        ).fetchone()
        return None if found is None else str(found[0])

    def elsewhere(self, picture: str, part: int) -> tuple[int, str] | None:
        """Return the first other part with a picture, and its place there."""
        found = self._table.execute(
            "SELECT part, place FROM items WHERE picture = ? AND part != ? ORDER BY part",
            (bytes.fromhex(picture), part),
        ).fetchone()
        return None if found is None else (int(found[0]), str(found[1]))
