"""Part of a source: its candidates, and the record of what became of its items.

Both are written together or not at all, in a shard of the pool or in what a stop leaves of one, so
that a resumed import knows all that an undisturbed one knows: how much was taken, which pictures
are in the pool, and what was left out and why.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tastemaker.datasets.items import LeftOut, counts_text
from tastemaker.storage.candidates import candidate_table
from tastemaker.storage.parquet import read_table

if TYPE_CHECKING:
    import pyarrow as pa

_TALLY = b"tastemaker"


@dataclass
class Tally:
    """Record of a part of the source.

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
        """Add the counts of one part."""
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
class Part:
    """Candidates of consecutive items of the source, and the record of these items.

    Args:
        rows: The candidates, with the scores that the source has.
        tally: The record.
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    tally: Tally = field(default_factory=Tally)

    @classmethod
    def read(cls, file: Path) -> Part:
        """Read what `Part.table` was written to, with columns of scores."""
        table = read_table(file)
        tally = tally_of(table.schema)
        assert tally is not None
        return cls(table.to_pylist(), tally)

    def table(self) -> pa.Table:
        """Return the candidates without scores, as in a shard, with the record as metadata."""
        table = candidate_table(self.rows)
        metadata = {**table.schema.metadata, _TALLY: json.dumps(asdict(self.tally))}
        return table.replace_schema_metadata(metadata)

    def scores(self, scorer: str) -> pa.Array:
        """Return a column of the candidates' scores, float32."""
        import pyarrow as pa

        return pa.array([row[scorer] for row in self.rows], pa.float32())


def tally_of(schema: pa.Schema) -> Tally | None:
    """Return the record in a shard's metadata; None for a shard of a version without it."""
    values = json.loads((schema.metadata or {}).get(_TALLY, b"null"))
    if values is None or "read" not in values:
        return None
    values["left_out"] = [LeftOut(**each) for each in values["left_out"]]
    return Tally(**values)
