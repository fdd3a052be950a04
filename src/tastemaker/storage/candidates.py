"""Candidates as rows: the schema of a pool's shards, rows by id, and stored latents."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tastemaker.core.lazy_torch import np
from tastemaker.storage.parquet import read_table, write_table
from tastemaker.storage.pool import Pool

if TYPE_CHECKING:
    import pyarrow as pa
    import torch

REAL = "real"
"""The source of a candidate that is a photograph."""

LISTS = ("latents_shape", "trajectory_shape", "original_size", "crops_coords_top_left")
"""Columns of whole numbers that a pool may have: of latents, and of photographs."""


def candidate_table(rows: list[dict[str, Any]]) -> pa.Table:
    """Build a shard whose pictures open as pictures in `datasets.load_dataset("parquet", ...)`.

    Args:
        rows: One dict per candidate; `latents` and `latents_shape` in all or none, and so
            `trajectory` with its shape, and the sizes of photographs, `original_size` and
            `crops_coords_top_left`.

    Returns:
        The table with the schema of candidates.
    """
    import pyarrow as pa

    kinds = {
        "candidate_id": pa.string(),
        "prompt_id": pa.string(),
        "prompt": pa.string(),
        "seed": pa.int64(),
        "source": pa.string(),
        "source_id": pa.string(),
        "timestep": pa.int32(),
        "model": pa.string(),
        "image": pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
    }
    for name in ("latents", "trajectory"):
        if rows and name in rows[0]:
            kinds[name] = pa.binary()
    lists = [name for name in LISTS if rows and name in rows[0]]
    kinds |= {name: pa.list_(pa.int32()) for name in lists}
    features: dict[str, Any] = {
        name: {"dtype": str(kind), "_type": "Value"} for name, kind in kinds.items()
    }
    features["image"] = {"_type": "Image"}
    for name in lists:
        value = {"dtype": "int32", "_type": "Value"}
        features[name] = {"feature": value, "_type": "List"}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    return pa.Table.from_pylist(rows, schema=pa.schema(kinds.items(), metadata=metadata))


def write_candidates(file: Path, rows: list[dict[str, Any]]) -> None:
    """Write a shard, or what a stopped command made of one."""
    write_table(file, candidate_table(rows))


def candidates_made(file: Path) -> list[dict[str, Any]]:
    """Read what a stopped command made of a shard; empty where there is none."""
    return read_table(file).to_pylist() if file.is_file() else []


class Rows:
    """Rows of a pool by candidate id, with one shard in memory: fast in the order of the pool.

    Of each candidate 16 bytes are kept in memory, so that millions fit.

    Args:
        pool: The pool.
        columns: What to read of a row; None reads all.
    """

    def __init__(self, pool: Pool, columns: Sequence[str] | None = None) -> None:
        self.columns = (
            None if columns is None else tuple({"candidate_id": 0, **dict.fromkeys(columns)})
        )
        self.shards = pool.shards()
        tables = (read_table(shard, ("candidate_id",))[0].to_pylist() for shard in self.shards)
        hashes = [np.array([hash(name) for name in names], dtype=np.int64) for names in tables]
        self.starts = np.cumsum([0, *map(len, hashes)])
        every = np.concatenate(hashes)
        self.order = every.argsort(kind="stable")
        self.hashes = every[self.order]
        self.current: tuple[int | None, pa.Table | None] = (None, None)

    def get(self, candidate_id: str) -> dict[str, Any] | None:
        """Return a candidate's row, or None where the pool does not hold it."""
        key = hash(candidate_id)
        first, last = (np.searchsorted(self.hashes, key, side) for side in ("left", "right"))
        # Different names may have one hash: the row itself says whose it is.
        for place in self.order[first:last]:
            row = self._row(int(place))
            if row["candidate_id"] == candidate_id:
                return row
        return None

    def __getitem__(self, candidate_id: str) -> dict[str, Any]:
        """Return a candidate's row.

        Raises:
            KeyError: The pool does not hold it.
        """
        row = self.get(candidate_id)
        if row is None:
            raise KeyError(candidate_id)
        return row

    def _row(self, place: int) -> dict[str, Any]:
        shard = int(np.searchsorted(self.starts, place, "right")) - 1
        if self.current[0] != shard:
            self.current = (shard, read_table(self.shards[shard], self.columns))
        table = self.current[1]
        assert table is not None
        rows: list[dict[str, Any]] = table.slice(place - int(self.starts[shard]), 1).to_pylist()
        return rows[0]


def has_trajectories(pool: Pool) -> bool:
    """Return whether a pool keeps the latents of every sampling step of its candidates."""
    import pyarrow.parquet as pq

    return "trajectory" in pq.read_schema(pool.shards()[0]).names


def item_of(row: Mapping[str, Any]) -> str:
    """Return the item that a candidate competes for: its real image, or else its prompt.

    Args:
        row: Of a pool, with candidate_id, prompt_id, source and source_id.

    Returns:
        Equal for candidates that compete.
    """
    if row["source"] == REAL:
        return str(row["candidate_id"])
    derived = row["source"] in {"generated", "reconstruction", "blend"}
    return str((row["source_id"] if derived else "") or row["prompt_id"])


def latents_of(row: dict[str, Any]) -> torch.Tensor | None:
    """Read a candidate's stored latents, float32, or None where it has none."""
    import torch

    if row.get("latents") is None:
        return None
    flat = torch.frombuffer(bytearray(row["latents"]), dtype=torch.float32)
    return flat.reshape(row["latents_shape"])
