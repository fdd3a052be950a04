"""Score a pool: a column a scorer, added shard by shard, never rewritten."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from tastemaker.batching import batched
from tastemaker.choices import ScorerChoice
from tastemaker.errors import TastemakerError
from tastemaker.files import read_table, write_table
from tastemaker.hardware import processes, torch_device, torch_dtype
from tastemaker.images import decode
from tastemaker.records import Pool, Stage, finished_key
from tastemaker.registry import SCORERS
from tastemaker.scorers.base import Scorer


def score_pool(
    pool: Pool,
    scorers: Sequence[ScorerChoice],
    *,
    batch_size: int = 64,
    device: str = "auto",
    dtype: str = "fp32",
) -> None:
    """Add what is missing of the scorers' columns.

    Args:
        pool: A finished pool.
        scorers: Registered scorers.
        batch_size: Pictures scored together.
        device: "auto", "cpu", "cuda" or "mps".
        dtype: "fp32", "bf16" or "fp16".

    Raises:
        TastemakerError: A scorer returns NaN or infinity, or a picture is corrupt.
    """
    pool_key = finished_key(pool.folder)
    for choice in scorers:
        config = {**choice.model_dump(mode="json"), "pool": pool_key, "dtype": dtype}
        folder = pool.folder / "scores" / choice.column
        stage = Stage(folder, f"score {choice.column}", config)
        if stage.begin().finished:
            continue
        _score_missing(pool, choice, batch_size, device, dtype)
        stage.finish(scorer=choice.column)


def _score_missing(
    pool: Pool, choice: ScorerChoice, batch_size: int, device: str, dtype: str
) -> None:
    state = processes()
    shards = pool.shards()[state.process_index :: state.num_processes]
    missing = [shard for shard in shards if not pool.score_file(choice.column, shard).is_file()]
    if missing:
        scorer: Scorer = SCORERS.bind(choice.name, choice.options)()
        scorer.to(torch_device(device), torch_dtype(dtype))
        with tqdm(desc=f"score {pool.folder.name} by {choice.column}", unit="images") as bar:
            for shard in missing:
                table = _score_shard(scorer, choice.column, shard, batch_size, bar)
                write_table(pool.score_file(choice.column, shard), table)
    state.wait_for_everyone()


def _score_shard(scorer: Scorer, column: str, shard: Path, batch_size: int, bar: Any) -> Any:
    import pyarrow as pa

    rows = read_table(shard, ("candidate_id", "prompt", "image")).to_pylist()
    scores: list[float] = []
    for part in batched(rows, batch_size):
        images = [decode(row["image"]["bytes"], row["candidate_id"]) for row in part]
        values = torch.as_tensor(scorer(images, [row["prompt"] for row in part]))
        _check(values, column, part)
        scores.extend(values.tolist())
        bar.update(len(part))
    ids = [row["candidate_id"] for row in rows]
    return pa.table({"candidate_id": ids, column: pa.array(scores, pa.float32())})


def _check(values: torch.Tensor, column: str, rows: Sequence[dict[str, Any]]) -> None:
    if values.shape != (len(rows),):
        raise TastemakerError(
            f"scorer {column!r} returned shape {tuple(values.shape)} for {len(rows)} images;"
            " it must return one number an image."
        )
    for row, value in zip(rows, values.tolist(), strict=True):
        if value != value or value in (float("inf"), float("-inf")):
            raise TastemakerError(
                f"scorer {column!r} returned {value} for candidate {row['candidate_id']}"
                f" ({row['prompt']!r}); mend the scorer or remove the image. No score was lost."
            )
