"""Resumable import: convert items to shards; record skipped items and why.

The metadata of a shard records what became of the part of the source behind it. Both are written
together or not at all, so that a resumed import knows all that an undisturbed one knows: how much
was taken, which pictures are in the pool, and what was left out and why. What grows with the source
lies on disk; memory holds one shard.
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
from tastemaker.storage.artifact import Artifact
from tastemaker.storage.files import atomic
from tastemaker.storage.parquet import read_table, write_table
from tastemaker.storage.pictures import Pictures
from tastemaker.storage.pool import Pool

POLL_SECONDS = 1.0

MOST_PRINTED = 20
"""Left-out items that are printed; all are listed in `left_out.jsonl`."""

_TALLY = b"tastemaker"


@dataclass
class Tally:
    """Record of one shard's part of the source.

    Args:
        read: Number of its items.
        taken: Number of items in the pool.
        images: Number of their candidates.
        filtered: Number of items that an option kept out, by reason.
        noted: Number of changed pictures, by change.
        left_out: Items that could not be used, in order.
        pictures: Place in the source of each picture that may come once, by its hash.
    """

    read: int = 0
    taken: int = 0
    images: int = 0
    filtered: dict[str, int] = field(default_factory=dict)
    noted: dict[str, int] = field(default_factory=dict)
    left_out: list[LeftOut] = field(default_factory=list)
    pictures: dict[str, str] = field(default_factory=dict)


@dataclass
class Total:
    """Counts over the whole source.

    Args:
        taken: Number of items in the pool.
        left_out: Number of items that could not be used.
        filtered: Number of items that an option kept out, by reason.
        noted: Number of changed pictures, by change.
        passed_over: Number of files beside the source's, by kind.
        first: First item that could not be used.
    """

    taken: int = 0
    left_out: int = 0
    filtered: Counter[str] = field(default_factory=Counter)
    noted: Counter[str] = field(default_factory=Counter)
    passed_over: Counter[str] = field(default_factory=Counter)
    first: LeftOut | None = None

    def add(self, part: Tally) -> None:
        """Add the counts of one shard's part."""
        self.taken += part.taken
        self.left_out += len(part.left_out)
        self.filtered.update(part.filtered)
        self.noted.update(part.noted)
        if self.first is None and part.left_out:
            self.first = part.left_out[0]

    def counts(self) -> dict[str, Any]:
        """Return the counts of items that were left out, dropped or changed, JSON-like."""
        return {
            "left_out": self.left_out,
            "dropped": dict(self.filtered),
            "passed_over": dict(self.passed_over),
            "changed": dict(self.noted),
        }

    def __str__(self) -> str:
        """Return e.g. `2 left out, the first a.png: no caption; 3 dropped: ties`."""
        first = f", the first {self.first.where}: {self.first.reason}" if self.first else ""
        return f"{self.left_out} left out{first}{counts_text(self.filtered)}"


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
            ) as bar,
            tempfile.TemporaryFile("w+", encoding="utf-8") as lines,
        ):
            for index in itertools.count():
                tally = self._written(index)
                if tally is None:
                    tally = self._make(index, source.items)
                else:
                    for _ in itertools.islice(source.items, tally.read):
                        pass
                bar.update(tally.taken)
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
        metadata = read_table(shard, ("candidate_id",)).schema.metadata or {}
        values = json.loads(metadata.get(_TALLY, b"null"))
        if values is None or "read" not in values:  # a shard of a version without this record
            return None
        values["left_out"] = [LeftOut(**each) for each in values["left_out"]]
        return Tally(**values)

    def _make(self, index: int, items: Iterator[Item | LeftOut]) -> Tally:
        """Convert items until a shard is full, and write it unless none is usable."""
        tally = Tally()
        rows: list[dict[str, Any]] = []
        scores: dict[str, list[float]] = {scorer: [] for scorer in self.scorers}
        for item in items:
            tally.read += 1
            if isinstance(item, Refused):
                raise item.error()
            try:
                usable = self._usable(item, tally)
            except Filtered as reason:
                tally.filtered[str(reason)] = tally.filtered.get(str(reason), 0) + 1
                continue
            except TastemakerError as error:
                self._leave_out(LeftOut(item.where, str(error)), tally)
                continue
            rows += usable.rows
            for scorer, column in scores.items():
                column += usable.scores[scorer]
            tally.noted = dict(Counter(tally.noted) + Counter(usable.notes))
            tally.taken += 1
            tally.images = len(rows)
            if tally.images >= self.shard_images or self.total.taken + tally.taken == self.limit:
                break
        if tally.taken:
            self._write(self.pool.shard(index), rows, scores, tally)
        return tally

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

    def _write(
        self, shard: Path, rows: list[dict[str, Any]], scores: dict[str, list[float]], tally: Tally
    ) -> None:
        import pyarrow as pa

        # Imported late: formats are loaded with the configuration and must not need torch.
        from tastemaker.storage.candidates import candidate_table

        table = candidate_table(rows)
        metadata = {**table.schema.metadata, _TALLY: json.dumps(asdict(tally))}
        write_table(shard, table.replace_schema_metadata(metadata))
        for scorer, values in scores.items():
            columns = {
                "candidate_id": table["candidate_id"],
                scorer: pa.array(values, pa.float32()),
            }
            write_table(self.pool.score_file(scorer, shard), pa.table(columns))


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
