"""One row a candidate: the schema of a pool's shards, and the latents that a row may carry."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    import pyarrow as pa


def candidate_table(rows: list[dict[str, Any]]) -> pa.Table:
    """Build a shard whose pictures open as pictures in `datasets.load_dataset("parquet", ...)`.

    Args:
        rows: One dict a candidate; `latents` and `latents_shape` in all or none.

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
    if rows and "latents" in rows[0]:
        kinds |= {"latents": pa.binary(), "latents_shape": pa.list_(pa.int32())}
    features: dict[str, Any] = {
        name: {"dtype": str(kind), "_type": "Value"} for name, kind in kinds.items()
    }
    features["image"] = {"_type": "Image"}
    if "latents_shape" in kinds:
        value = {"dtype": "int32", "_type": "Value"}
        features["latents_shape"] = {"feature": value, "_type": "List"}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    return pa.Table.from_pylist(rows, schema=pa.schema(kinds.items(), metadata=metadata))


def latents_of(row: dict[str, Any]) -> torch.Tensor | None:
    """Read a candidate's stored latents, float32, or None where it has none."""
    if row.get("latents") is None:
        return None
    flat = torch.frombuffer(bytearray(row["latents"]), dtype=torch.float32)
    return flat.reshape(row["latents_shape"])
