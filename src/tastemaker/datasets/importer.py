"""Resumable import: convert items to shards; record skipped items and why.

A shard's own metadata says what became of the part of the source behind it. The two are therefore
there together or not at all, and an import that goes on knows all that an undisturbed one knows:
how much was taken, which pictures are in the pool, and what was left out and why. What grows with
the source lies on disk: memory holds one shard.
"""

from __future__ import annotations

import itertools
import json
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any, Generic, Protocol, TypeVar

from tqdm import tqdm

from tastemaker.core.errors import TastemakerError
from tastemaker.core.hardware import number_of_processes, processes
from tastemaker.storage.artifact import Artifact
from tastemaker.storage.files import atomic, read_table, write_table
from tastemaker.storage.pictures import Pictures
from tastemaker.storage.pool import Pool

POLL_SECONDS = 1.0

MOST_TOLD = 20
"""Of more items that are left out, the rest is listed in `left_out.jsonl` alone."""

_TALLY = b"tastemaker"


class Named(Protocol):
    """Anything that says where in its source it stands."""

    @property
    def where(self) -> str:
        """File, or file and row; unique within the source."""


Item = TypeVar("Item", bound=Named)


@dataclass(frozen=True)
class LeftOut:
    """An item of the source that is not in the pool.

    Args:
        where: Where it stands in the source.
        reason: Why it was left out, and what to do about it.
    """

    where: str
    reason: str


@dataclass(frozen=True)
class Refused(LeftOut):
    """An item, or a file, that shows the source to be torn or not what it is taken for.

    An import ends there, and what it has written stays; a check goes on.
    """

    def error(self) -> TastemakerError:
        """What an import says."""
        return TastemakerError(f"{self.where}: {self.reason}")


class Filtered(TastemakerError):
    """What an option keeps out of the pool: counted by reason, not listed row by row."""


@dataclass(frozen=True)
class Usable:
    """What an item of the source became.

    Args:
        rows: Its candidates.
        scores: Scorer to one score a candidate, where the source has scores.
        pictures: Hash of each candidate's pixels.
        once: Whether of two items with a picture in common the second is left out.
        notes: What was done to its pictures that is worth counting, one each time.
    """

    rows: tuple[dict[str, Any], ...]
    scores: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    pictures: tuple[str, ...] = ()
    once: bool = False
    notes: tuple[str, ...] = ()


Convert = Callable[[Item, int], Usable]
"""From an item, and the number of those taken before it, to candidates.

Raises `Filtered` where an option keeps it out, another `TastemakerError` where it cannot be used.
"""


@dataclass
class Tally:
    """What became of a part of the source.

    Args:
        read: How many items it has.
        taken: How many of them are in the pool.
        images: How many candidates they became.
        filtered: How many an option kept out, by reason.
        noted: How many of the pictures taken were changed, by what.
        left_out: Those that could not be used, in order.
        pictures: Where each picture that may come once stands in the source, by its hash.
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
    """What became of the whole source, in numbers.

    Args:
        taken: How many items are in the pool.
        left_out: How many could not be used.
        filtered: How many an option kept out, by reason.
        noted: How many of the pictures taken were changed, by what.
        passed_over: How many files lie beside the source's, by kind.
        first: The first that could not be used.
    """

    taken: int = 0
    left_out: int = 0
    filtered: Counter[str] = field(default_factory=Counter)
    noted: Counter[str] = field(default_factory=Counter)
    passed_over: Counter[str] = field(default_factory=Counter)
    first: LeftOut | None = None

    def add(self, part: Tally) -> None:
        """Count a part of the source in."""
        self.taken += part.taken
        self.left_out += len(part.left_out)
        self.filtered.update(part.filtered)
        self.noted.update(part.noted)
        if self.first is None and part.left_out:
            self.first = part.left_out[0]

    def counts(self) -> dict[str, Any]:
        """What became of all that is not taken as it stands, JSON-like."""
        return {
            "left_out": self.left_out,
            "dropped": dict(self.filtered),
            "passed_over": dict(self.passed_over),
            "changed": dict(self.noted),
        }

    def __str__(self) -> str:
        """`2 left out, the first a.png: no caption; 3 dropped: ties`."""
        first = f", the first {self.first.where}: {self.first.reason}" if self.first else ""
        return f"{self.left_out} left out{first}{told(self.filtered)}"


@dataclass
class Intake(Generic[Item]):
    """Fills a pool with the items of a source.

    Args:
        pool: Where to.
        kind: What an item is called, for messages: "image", "comparison".
        convert: From an item to candidates.
        shard_images: Images that fill a shard.
        limit: Take so many items; None: all.
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

    def fill(
        self, items: Iterator[Item | LeftOut], source: str, passed_over: Iterable[LeftOut] = ()
    ) -> Total:
        """Write the shards that are missing, and `left_out.jsonl`.

        Args:
            items: The source in its order, the same every time.
            source: Its path or name, for messages.
            passed_over: Files that lie beside those of the items: listed, and counted by reason.

        Returns:
            What became of the whole source.

        Raises:
            TastemakerError: The source breaks off, is refused or holds nothing usable, or the disk
                is full.
        """
        name = self.pool.folder.name
        with (
            tqdm(desc=f"import {name}", total=self.limit, unit=f"{self.kind}s") as bar,
            tempfile.TemporaryFile("w+", encoding="utf-8") as lines,
        ):
            for index in itertools.count():
                tally = self._held(index)
                if tally is None:
                    tally = self._make(index, items)
                else:
                    _pass_over(items, tally.read)
                bar.update(tally.taken)
                self._count(tally, lines)
                if tally.images < self.shard_images or self.total.taken == self.limit:
                    break
            if not self.total.taken:
                raise TastemakerError(f"{source} gave no usable {self.kind} ({self.total}).")
            for other in passed_over:
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
            f"{told(self.total.filtered)}{told(self.total.passed_over, 'passed over')}"
            f"{told(self.total.noted, 'pictures')}"
        )
        return self.total

    def _held(self, index: int) -> Tally | None:
        """What became of the items behind a shard that is there; None where it is missing."""
        shard = self.pool.shard(index)
        if not all(file.is_file() for file in self._files(shard)):
            return None
        metadata = read_table(shard, ("candidate_id",)).schema.metadata or {}
        held = json.loads(metadata.get(_TALLY, b"null"))
        if held is None or "read" not in held:  # the shard of a version that kept no such tally
            return None
        held["left_out"] = [LeftOut(**each) for each in held["left_out"]]
        return Tally(**held)

    def _files(self, shard: Path) -> list[Path]:
        return [shard, *(self.pool.score_file(scorer, shard) for scorer in self.scorers)]

    def _make(self, index: int, items: Iterator[Item | LeftOut]) -> Tally:
        """Convert items until a shard is full and write it; nothing where none is usable."""
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
        if number <= MOST_TOLD:
            tqdm.write(f"left out: {item.where}: {item.reason}")
        elif number == MOST_TOLD + 1:
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

        # Here, so that the formats, which are read with the configuration, need no torch.
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


def told(counts: Mapping[str, int], what: str = "dropped") -> str:
    """Say how many were dropped, or something else, for what, to append to a message.

    Example:
        >>> told({"ties": 3})
        '; 3 dropped: ties'
    """
    return "".join(f"; {number} {what}: {reason}" for reason, number in counts.items())


def left_to_main_process(artifact: Artifact) -> bool:
    """Wait, in every process but the main one, until that one has finished an artifact.

    They watch the folder: an import may last longer than processes wait for one another at a
    barrier before they give up.

    Args:
        artifact: Begun, in a folder that all processes see.

    Returns:
        False in the main process, which has the work to do; True in the others when it is done.
    """
    if number_of_processes() == 1 or processes().is_main_process:
        return False
    while not artifact.finished:
        time.sleep(POLL_SECONDS)
    return True


def _pass_over(items: Iterator[Any], number: int) -> None:
    for _ in itertools.islice(items, number):
        pass
