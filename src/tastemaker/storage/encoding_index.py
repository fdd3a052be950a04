"""Index of encodings: which row each image and each prompt has, in an SQLite database.

It is made on disk, with a few megabytes of memory, for any number of images. Rows are never
moved: an image whose content is new gets a new row, in a new shard.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

TABLES = """
CREATE TABLE IF NOT EXISTS entry (
  number INTEGER PRIMARY KEY, content BLOB UNIQUE, source INTEGER, place INTEGER);
CREATE TABLE IF NOT EXISTS shard (number INTEGER PRIMARY KEY, layout TEXT, rows INTEGER);
CREATE TABLE IF NOT EXISTS prompt (number INTEGER PRIMARY KEY, text TEXT UNIQUE);
DROP TABLE IF EXISTS image;
CREATE TABLE image (id TEXT PRIMARY KEY, number INTEGER) WITHOUT ROWID;
"""


class Layout(NamedTuple):
    """Kind and shape that all images of a shard share.

    Attributes:
        kept: Whether they are latents that the pool keeps, not images for the VAE.
        shape: Of their latents: channels, height and width.
    """

    kept: bool
    shape: tuple[int, int, int]


class EncodingIndex:
    """Rows of images by id and content, and of prompts by text.

    Args:
        place: The database; None for one in memory.
        writing: Begin anew with images' ids; contents and prompts keep their rows.
    """

    images_per_shard = 256
    prompts_per_shard = 64

    def __init__(self, place: Path | None, *, writing: bool) -> None:
        self.tables = sqlite3.connect(":memory:" if place is None else place, isolation_level=None)
        if writing:
            # A file that becomes the index when it is whole needs no journal.
            for option in ("journal_mode = OFF", "synchronous = OFF"):
                self.tables.execute(f"PRAGMA {option}")
            self.tables.executescript(TABLES)
            self.tables.execute("BEGIN")
            # Shards that are there are left as they are: what is new begins another.
            self._next_prompt = len(self.prompt_counts()) * self.prompts_per_shard
        self._open: dict[Layout, tuple[int, int]] = {}

    def add_example(self, images: Iterable[str], prompt: str) -> None:
        """Take note of what an example needs."""
        insert = "INSERT OR IGNORE INTO image VALUES (?, NULL)"
        self.tables.executemany(insert, ((each,) for each in images))
        self.add_prompt(prompt)

    def add_prompt(self, prompt: str) -> None:
        """Give a prompt its row."""
        insert = "INSERT OR IGNORE INTO prompt VALUES (?, ?)"
        self._next_prompt += self.tables.execute(insert, (self._next_prompt, prompt)).rowcount

    def needs(self, image: str) -> bool:
        """Return whether an example has an image."""
        return self._first("SELECT 1 FROM image WHERE id = ?", image) is not None

    def add_image(
        self, image: str, content: bytes, layout: Layout, source: int, place: int
    ) -> None:
        """Give an image its row, that of its content where it has one.

        Args:
            image: Its id.
            content: Hash of everything that its encoding depends on.
            layout: Of its encoding.
            source: Number of the file or item to read it from.
            place: Where in that.
        """
        found = self._first("SELECT number FROM entry WHERE content = ?", content)
        if found is None:
            number = self._new_row(layout)
            insert = "INSERT INTO entry VALUES (?, ?, ?, ?)"
            self.tables.execute(insert, (number, content, source, place))
        else:
            number = found[0]
            update = "UPDATE entry SET source = ?, place = ? WHERE number = ?"
            self.tables.execute(update, (source, place, number))
        self.tables.execute("UPDATE image SET number = ? WHERE id = ?", (number, image))

    def _new_row(self, layout: Layout) -> int:
        shard, rows = self._open.get(layout, (-1, self.images_per_shard))
        if rows == self.images_per_shard:
            shard, rows = self._shards(), 0
            insert = "INSERT INTO shard VALUES (?, ?, 0)"
            self.tables.execute(insert, (shard, json.dumps(layout)))
        self._open[layout] = shard, rows + 1
        self.tables.execute("UPDATE shard SET rows = ? WHERE number = ?", (rows + 1, shard))
        return shard * self.images_per_shard + rows

    def missing(self) -> tuple[int, str]:
        """Return how many images were not given a row, and the id of the first."""
        select = "SELECT count(*), min(id) FROM image WHERE number IS NULL"
        number, first = self.tables.execute(select).fetchone()
        return int(number), str(first)

    def finish(self) -> None:
        """Forget contents that no image has any longer, and write everything."""
        self.tables.execute("DELETE FROM entry WHERE number NOT IN (SELECT number FROM image)")
        self.tables.execute("COMMIT")

    def image(self, image: str) -> tuple[int, bytes]:
        """Return the row and the content of an image."""
        select = "SELECT number, content FROM image JOIN entry USING (number) WHERE id = ?"
        number, content = self.tables.execute(select, (image,)).fetchone()
        return number, content

    def prompt(self, prompt: str) -> int:
        """Return the row of a prompt."""
        found = self._first("SELECT number FROM prompt WHERE text = ?", prompt)
        assert found is not None
        return found[0]

    def layouts(self) -> list[Layout]:
        """Return the layout of each shard of images."""
        found = self.tables.execute("SELECT layout FROM shard ORDER BY number").fetchall()
        parsed = (json.loads(text) for (text,) in found)
        return [Layout(kept, tuple(shape)) for kept, shape in parsed]

    def layout(self, shard: int) -> Layout:
        """Return the layout of a shard of images."""
        select = "SELECT layout FROM shard WHERE number = ?"
        kept, shape = json.loads(self.tables.execute(select, (shard,)).fetchone()[0])
        return Layout(kept, tuple(shape))

    def images_of(self, shard: int) -> list[tuple[int, int]]:
        """Return source and place of the images of a shard, in the order of their rows.

        In the row of an image that was forgotten stands another of the shard.
        """
        first = shard * self.images_per_shard
        select = "SELECT number, source, place FROM entry WHERE number BETWEEN ? AND ?"
        found = self.tables.execute(select, (first, first + self.images_per_shard - 1)).fetchall()
        places = {number: (source, place) for number, source, place in found}
        rows = self._first("SELECT rows FROM shard WHERE number = ?", shard) or (0,)
        other = next(iter(places.values()), None)
        return [places.get(first + i, other) for i in range(rows[0])] if other else []

    def prompts_of(self, shard: int) -> list[str]:
        """Return the prompts of a shard, in the order of their rows."""
        first = shard * self.prompts_per_shard
        select = "SELECT text FROM prompt WHERE number BETWEEN ? AND ? ORDER BY number"
        found = self.tables.execute(select, (first, first + self.prompts_per_shard - 1)).fetchall()
        return [text for (text,) in found]

    def image_counts(self) -> dict[int, int]:
        """Return the number of images of each shard that has any."""
        return self._counts("entry", self.images_per_shard)

    def prompt_counts(self) -> dict[int, int]:
        """Return the number of prompts of each shard."""
        return self._counts("prompt", self.prompts_per_shard)

    def _shards(self) -> int:
        found: int = self.tables.execute("SELECT count(*) FROM shard").fetchone()[0]
        return found

    def _counts(self, table: str, size: int) -> dict[int, int]:
        select = f"SELECT number / {size}, count(*) FROM {table} GROUP BY 1"
        return dict(self.tables.execute(select).fetchall())

    def close(self) -> None:
        """Close the database."""
        self.tables.close()

    def _first(self, select: str, value: str | bytes | int) -> tuple[int, ...] | None:
        found: tuple[int, ...] | None = self.tables.execute(select, (value,)).fetchone()
        return found
