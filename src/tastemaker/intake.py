"""What an import takes and what it leaves out, shard by shard, so that it can be stopped.

A shard's own metadata says what became of the part of the source behind it. The two are therefore
there together or not at all, and an import that goes on knows all that an undisturbed one knows:
how much was taken, which pictures are in the pool, and what was left out and why.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from tqdm import tqdm

from tastemaker.errors import TastemakerError
from tastemaker.files import read_table, write_table, write_text
from tastemaker.hardware import processes
from tastemaker.records import Pool, Stage

POLL_SECONDS = 1.0

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
class Usable:
    """What an item of the source became.

    Args:
        rows: Its candidates.
        scores: One a candidate, where the source has scores.
        picture: Hash of its pixels: of two items with one hash the second is left out. Empty where
            repetitions are meant.
    """

    rows: tuple[dict[str, Any], ...]
    scores: tuple[float, ...] = ()
    picture: str = ""


@dataclass
class Tally:
    """What became of a source, or of a part of it.

    Args:
        taken: How many items are in the pool.
        left_out: Those that are not, in order.
        pictures: Where each picture of the pool stands in the source, by its hash.
    """

    taken: int = 0
    left_out: list[LeftOut] = field(default_factory=list)
    pictures: dict[str, str] = field(default_factory=dict)

    def add(self, part: Tally) -> None:
        """Count another part of the source in."""
        self.taken += part.taken
        self.left_out += part.left_out
        self.pictures |= part.pictures


@dataclass
class Intake(Generic[Item]):
    """Fills a pool with the items of a source.

    Args:
        pool: Where to.
        kind: What an item is called, for messages: "image", "comparison".
        convert: From an item, and the number of those taken before it, to candidates; raises
            `TastemakerError` with the reason where the item cannot be used.
        shard_items: Items in one shard.
        limit: Take so many items; None: all.
        scorer: Column of the scores that the source has; None: it has none.
    """

    pool: Pool
    kind: str
    convert: Callable[[Item, int], Usable]
    shard_items: int
    limit: int | None = None
    scorer: str | None = None
    total: Tally = field(default_factory=Tally, init=False)

    def fill(self, items: Iterator[Item | LeftOut], source: str) -> Tally:
        """Write the shards that are missing, and `left_out.jsonl`.

        Args:
            items: The source in its order, the same every time.
            source: Its path or name, for messages.

        Returns:
            What became of the whole source.

        Raises:
            TastemakerError: The source breaks off or holds nothing usable, or the disk is full.
        """
        name = self.pool.folder.name
        with tqdm(desc=f"import {name}", total=self.limit, unit=f"{self.kind}s") as bar:
            for index in itertools.count():
                tally = self._held(index)
                if tally is None:
                    tally = self._make(index, items)
                else:
                    _pass_over(items, tally.taken + len(tally.left_out))
                bar.update(tally.taken)
                self.total.add(tally)
                if tally.taken < self.shard_items or self.total.taken == self.limit:
                    break
        lines = [json.dumps(asdict(each)) for each in self.total.left_out]
        write_text(self.pool.left_out, "".join(f"{line}\n" for line in lines))
        if not self.total.taken:
            first = [f", the first {each.where}: {each.reason}" for each in self.total.left_out[:1]]
            number = f"{len(self.total.left_out)} left out{''.join(first)}"
            raise TastemakerError(f"{source} gave no usable {self.kind} ({number}).")
        print(f"imported {self.total.taken} {self.kind}s, left out {len(self.total.left_out)}")
        return self.total

    def _held(self, index: int) -> Tally | None:
        """What became of the items behind a shard that is there; None where it is missing."""
        shard = self.pool.shard(index)
        if not all(file.is_file() for file in self._files(shard)):
            return None
        metadata = read_table(shard, ("candidate_id",)).schema.metadata or {}
        held = json.loads(metadata.get(_TALLY, b"null"))
        if held is None:  # the shard of a version that kept no tally
            return None
        left_out = [LeftOut(**each) for each in held["left_out"]]
        return Tally(held["taken"], left_out, held["pictures"])

    def _files(self, shard: Path) -> list[Path]:
        return [shard, *([self.pool.score_file(self.scorer, shard)] if self.scorer else [])]

    def _make(self, index: int, items: Iterator[Item | LeftOut]) -> Tally:
        """Convert items until a shard is full and write it; nothing where none is usable."""
        tally = Tally()
        rows: list[dict[str, Any]] = []
        scores: list[float] = []
        for item in items:
            try:
                usable = self._usable(item, tally)
            except TastemakerError as error:
                tally.left_out.append(LeftOut(item.where, str(error)))
                tqdm.write(f"left out: {item.where}: {error}")
                continue
            rows += usable.rows
            scores += usable.scores
            tally.taken += 1
            if tally.taken == self.shard_items or self.total.taken + tally.taken == self.limit:
                break
        if tally.taken:
            self._write(self.pool.shard(index), rows, scores, tally)
        return tally

    def _usable(self, item: Item | LeftOut, tally: Tally) -> Usable:
        if isinstance(item, LeftOut):
            raise TastemakerError(item.reason)
        usable = self.convert(item, self.total.taken + tally.taken)
        if usable.picture:
            for seen in (self.total.pictures, tally.pictures):
                if usable.picture in seen:
                    raise TastemakerError(f"the same picture as {seen[usable.picture]}")
            tally.pictures[usable.picture] = item.where
        return usable

    def _write(
        self, shard: Path, rows: list[dict[str, Any]], scores: list[float], tally: Tally
    ) -> None:
        import pyarrow as pa

        # Here, so that the formats, which are read with the configuration, need no torch.
        from tastemaker.candidates import candidate_table

        table = candidate_table(rows)
        metadata = {**table.schema.metadata, _TALLY: json.dumps(asdict(tally))}
        write_table(shard, table.replace_schema_metadata(metadata))
        if self.scorer:
            columns = {
                "candidate_id": table["candidate_id"],
                self.scorer: pa.array(scores, pa.float32()),
            }
            write_table(self.pool.score_file(self.scorer, shard), pa.table(columns))


def left_to_main_process(stage: Stage) -> bool:
    """Wait, in every process but the main one, until that one has finished a stage.

    They watch the folder: an import may last longer than processes wait for one another at a
    barrier before they give up.

    Args:
        stage: Begun, in a folder that all processes see.

    Returns:
        False in the main process, which has the work to do; True in the others when it is done.
    """
    if processes().is_main_process:
        return False
    while not stage.finished:
        time.sleep(POLL_SECONDS)
    return True


def _pass_over(items: Iterator[Any], number: int) -> None:
    for _ in itertools.islice(items, number):
        pass
