"""Pairs: one parquet file, and the pools that its ids point into."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tastemaker.storage.files import damaged, read_json, write_json
from tastemaker.storage.parquet import read_rows, read_table, write_rows
from tastemaker.storage.pool import Pool

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class PairSet:
    """A folder of pairs and the pools they point into.

    Args:
        folder: The folder, made by `pair` or by an import.
    """

    folder: Path

    @property
    def file(self) -> Path:
        """The parquet file: pair_id, prompt_id, prompt, chosen_id, rejected_id, rule, margin."""
        return self.folder / "pairs.parquet"

    def table(self) -> pa.Table:
        """Read all pairs."""
        return read_table(self.file)

    def rows(self) -> Iterator[dict[str, Any]]:
        """Read one pair after the other."""
        return read_rows(self.file)

    def prompts(self) -> Iterator[str]:
        """Read one pair's prompt after the other."""
        return (row["prompt"] for row in self.rows())

    def pools(self) -> list[Pool]:
        """Return the pools that the pairs' images lie in."""
        file = self.folder / "pools.json"
        names = read_json(file)
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise damaged(file, "not a list of folders")
        return [Pool((self.folder / name).resolve()) for name in names]

    def write(self, rows: Iterable[Mapping[str, Any]], pools: Sequence[Pool]) -> int:
        """Write pairs and the pools' places, relative to this folder.

        Args:
            rows: One a pair, with the columns of `file`; read once, a few in memory.
            pools: Where their images lie.

        Returns:
            How many pairs there were.
        """
        import pyarrow as pa

        here = self.folder.resolve()
        places = [os.path.relpath(pool.folder.resolve(), here) for pool in pools]
        texts = ("pair_id", "prompt_id", "prompt", "chosen_id", "rejected_id", "rule")
        kinds = {**dict.fromkeys(texts, pa.string()), "margin": pa.float64()}
        number = write_rows(self.file, rows, pa.schema(kinds.items()))
        if number:
            write_json(self.folder / "pools.json", places)
        return number
