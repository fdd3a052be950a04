"""Resumable import: convert items to shards; record skipped items and why.

A stop keeps the part at hand, shard or not. What grows with the source lies on disk; memory holds
one shard.
"""

from __future__ import annotations

import itertools
import json
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any, Generic

from tqdm import tqdm

from tastemaker.core.errors import TastemakerError
from tastemaker.core.hardware import number_of_processes, processes
from tastemaker.core.interruption import Interruption
from tastemaker.datasets.items import (
    Convert,
    Filtered,
    Item,
    LeftOut,
    Refused,
    Source,
    Usable,
    counts_text,
)
from tastemaker.datasets.parts import Part, Tally, Total, tally_of
from tastemaker.storage.artifact import Artifact
from tastemaker.storage.files import atomic
from tastemaker.storage.parquet import read_table, write_table
from tastemaker.storage.pictures import Pictures
from tastemaker.storage.pool import Pool

POLL_SECONDS = 1.0

MOST_PRINTED = 20
"""Left-out items that are printed; all are listed in `left_out.jsonl`."""


@dataclass
class Importer(Generic[Item]):
    """Writer of a pool from the items of a source.

    Args:
        pool: Pool to write.
        kind: Noun for an item, for messages: "image", "comparison".
        convert: Conversion of an item to candidates.
        shard_images: Images per full shard.
        limit: Number of items to take; None: all.
        scorers: Columns of the scores that the source has.
    """

    pool: Pool
    kind: str
    convert: Convert[Item]
    shard_images: int
    limit: int | None = None
    scorers: tuple[str, ...] = ()
    total: Total = field(default_factory=Total, init=False)
    pictures: Pictures = field(default_factory=Pictures, init=False)
    bar: tqdm[Any] = field(init=False)

    def fill(self, source: Source[Item], name: str) -> Total:
        """Write the missing shards, and `left_out.jsonl`.

        Args:
            source: Its items go to the pool, its other files are listed and counted by reason.
            name: Path or name of the source, for messages.

        Returns:
            Counts over the whole source.

        Raises:
            TastemakerError: The source breaks off, is refused or holds nothing usable, or the disk
                is full.
        """
        with (
            tqdm(
                desc=f"import {self.pool.folder.name}", total=self.limit, unit=f"{self.kind}s"
            ) as self.bar,
            tempfile.TemporaryFile("w+", encoding="utf-8") as lines,
        ):
            for index in itertools.count():
                tally = self._written(index)
                if tally is None:
                    tally = self._make(index, source.items)
                else:
                    self._pass_over(tally, source.items)
                self._count(tally, lines)
                if tally.images < self.shard_images or self.total.taken == self.limit:
                    break
            if not self.total.taken:
                raise TastemakerError(f"{name} gave no usable {self.kind} ({self.total}).")
            for other in source.passed_over:
                self.total.passed_over[other.reason] += 1
                lines.write(f"{json.dumps(asdict(other))}\n")
            lines.seek(0)
            with (
                atomic(self.pool.left_out) as temporary,
                temporary.open("w", encoding="utf-8") as file,
            ):
                shutil.copyfileobj(lines, file)
        self.pictures.close()
        print(
            f"imported {self.total.taken} {self.kind}s, left out {self.total.left_out}"
            f"{counts_text(self.total.filtered)}"
            f"{counts_text(self.total.passed_over, 'passed over')}"
            f"{counts_text(self.total.noted, 'pictures')}"
        )
        return self.total

    def _written(self, index: int) -> Tally | None:
        """Return the record of a shard that an earlier import wrote; None where it is missing."""
        shard = self.pool.shard(index)
        files = [shard, *(self.pool.score_file(scorer, shard) for scorer in self.scorers)]
        if not all(file.is_file() for file in files):
            return None
        return tally_of(read_table(shard, ("candidate_id",)).schema)

    def _make(self, index: int, items: Iterator[Item | LeftOut]) -> Tally:
        """Convert items until a shard is full, and write it unless none is usable.

        What an earlier import made of the shard is taken up; a stop writes what there is.
        """
        unfinished = self.pool.unfinished(index)
        part = Part.read(unfinished) if unfinished.is_file() else Part()
        self._pass_over(part.tally, items)
        with Interruption() as interruption:
            while not (interruption.signal or self._full(part.tally)):
                if (item := next(items, None)) is None:
                    break
                self._add(item, part)
            if interruption.signal and part.tally.read:
                self._write_unfinished(unfinished, part)
            elif part.rows:
                self._write(self.pool.shard(index), part)
        return part.tally

    def _pass_over(self, tally: Tally, items: Iterator[Item | LeftOut]) -> None:
        """Go on behind the items of a part that is there."""
        for _ in itertools.islice(items, tally.read):
            pass
        self.bar.update(tally.taken)

    def _full(self, tally: Tally) -> bool:
        """Return True where a shard is full, or with it the pool."""
        taken = self.total.taken + tally.taken
        return tally.images >= self.shard_images or taken == self.limit

    def _add(self, item: Item | LeftOut, part: Part) -> None:
        """Convert an item, and record what became of it."""
        tally = part.tally
        tally.read += 1
        if isinstance(item, Refused):
            raise item.error()
        try:
            usable = self._usable(item, tally)
        except Filtered as reason:
            tally.filtered[str(reason)] = tally.filtered.get(str(reason), 0) + 1
        except TastemakerError as error:
            self._leave_out(LeftOut(item.where, str(error)), tally)
        else:
            part.rows += usable.rows
            tally.noted = dict(Counter(tally.noted) + Counter(usable.notes))
            tally.taken += 1
            tally.images = len(part.rows)
            self.bar.update()

    def _usable(self, item: Item | LeftOut, tally: Tally) -> Usable:
        if isinstance(item, LeftOut):
            raise TastemakerError(item.reason)
        usable = self.convert(item, self.total.taken + tally.taken)
        if usable.once:
            for picture in usable.pictures:
                seen = tally.pictures.get(picture) or self.pictures.where(picture)
                if seen:
                    raise TastemakerError(f"the same picture as {seen}")
            tally.pictures |= dict.fromkeys(usable.pictures, item.where)
        return usable

    def _leave_out(self, item: LeftOut, tally: Tally) -> None:
        tally.left_out.append(item)
        number = self.total.left_out + len(tally.left_out)
        if number <= MOST_PRINTED:
            tqdm.write(f"left out: {item.where}: {item.reason}")
        elif number == MOST_PRINTED + 1:
            tqdm.write(f"left out: more, see {self.pool.left_out} in the end")

    def _count(self, tally: Tally, lines: IO[str]) -> None:
        self.total.add(tally)
        lines.writelines(f"{json.dumps(asdict(each))}\n" for each in tally.left_out)
        for picture, where in tally.pictures.items():
            self.pictures.add(picture, where)

    def _write(self, shard: Path, part: Part) -> None:
        import pyarrow as pa

        table = part.table()
        write_table(shard, table)
        for scorer in self.scorers:
            columns = {"candidate_id": table["candidate_id"], scorer: part.scores(scorer)}
            write_table(self.pool.score_file(scorer, shard), pa.table(columns))

    def _write_unfinished(self, file: Path, part: Part) -> None:
        table = part.table()
        for scorer in self.scorers:
            table = table.append_column(scorer, part.scores(scorer))
        write_table(file, table)


def left_to_main_process(artifact: Artifact) -> bool:
    """Wait, in every process but the main one, until the main process has finished a artifact.

    The folder is polled, because an import may last longer than the time-out of a barrier.

    Args:
        artifact: A begun artifact, in a folder that all processes see.

    Returns:
        False in the main process, which has the work to do; True in the others once it is done.
    """
    if number_of_processes() == 1 or processes().is_main_process:
        return False
    while not artifact.finished:
        time.sleep(POLL_SECONDS)
    return True
