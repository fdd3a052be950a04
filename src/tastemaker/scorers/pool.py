"""Score pools: one column per scorer, added shard by shard, never rewritten."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from tqdm import tqdm

from tastemaker.config.choices import ScorerChoice
from tastemaker.core.batching import batched, overlapped
from tastemaker.core.errors import TastemakerError
from tastemaker.core.hardware import processes, torch_device, torch_dtype
from tastemaker.core.lazy_torch import torch
from tastemaker.core.registry import ENSEMBLES, SCORERS
from tastemaker.scorers.base import Scorer
from tastemaker.scorers.cache import CONTENT, content, known_scores, scores_elsewhere
from tastemaker.scorers.inputs import column_artifact
from tastemaker.scorers.shared_embeddings import shared_embeddings
from tastemaker.storage.candidates import item_of
from tastemaker.storage.images import decode
from tastemaker.storage.parquet import read_table, write_table
from tastemaker.storage.pool import Pool
from tastemaker.storage.unfinished import UNFINISHED, saved_when_stopped

ITEM = ("candidate_id", "prompt_id", "source", "source_id")
"""Columns that say which candidates compete."""


def score_pools(
    pools: Sequence[Pool],
    scorers: Sequence[ScorerChoice],
    *,
    reuse: Sequence[Pool] = (),
    batch_size: int = 64,
    device: str = "auto",
    dtype: str = "fp32",
) -> None:
    """Add what is missing of the scorers' columns, in their order; each scorer is loaded once.

    An image that is in a pool twice with one prompt is scored once, and embedded once by scorers
    of one CLIP.

    Args:
        pools: Finished pools.
        scorers: Registered scorers, and ensembles of columns before them.
        reuse: Scored pools, whose scores by the same scorers are taken over for equal images and
            prompts.
        batch_size: Pictures scored together.
        device: "auto", "cpu", "cuda" or "mps".
        dtype: "fp32", "bf16" or "fp16".

    Raises:
        TastemakerError: A scorer returns NaN or infinity, or a picture is corrupt.
    """
    with shared_embeddings():
        for choice in scorers:
            load = functools.cache(functools.partial(load_scorer, choice, device, dtype))
            for pool in pools:
                _add_column(pool, choice, load, reuse, batch_size, dtype)


def load_scorer(choice: ScorerChoice, device: str, dtype: str) -> Scorer:
    """Make a configured scorer.

    Args:
        choice: A registered scorer, not an ensemble.
        device: "auto", "cpu", "cuda" or "mps".
        dtype: "fp32", "bf16" or "fp16".

    Returns:
        The scorer on its device.

    Raises:
        TastemakerError: Its weights are missing or of another model.
    """
    scorer: Scorer = SCORERS.bind(choice.name, choice.options)()
    scorer.to(torch_device(device), torch_dtype(dtype))
    return scorer


def _add_column(
    pool: Pool,
    choice: ScorerChoice,
    load: Callable[[], Scorer],
    reuse: Sequence[Pool],
    batch_size: int,
    dtype: str,
) -> None:
    """Make what is missing of one scorer's column."""
    artifact = column_artifact(pool.folder, choice, dtype)
    with artifact.claimed() as unfinished:
        if not unfinished:
            return
        if choice.members:
            _combine_missing(pool, choice)
        else:
            known: dict[bytes, float] = {}
            for other in reuse:
                known |= scores_elsewhere(other, choice.column, artifact.config)
            _score_missing(pool, choice.column, load, known, batch_size)
        artifact.finish(scorer=choice.column)


def _own(pool: Pool) -> list[Path]:
    """Return the shards of this process."""
    state = processes()
    return pool.shards()[state.process_index :: state.num_processes]


def _score_missing(
    pool: Pool,
    column: str,
    load: Callable[[], Scorer],
    known: dict[bytes, float],
    batch_size: int,
) -> None:
    shards = _own(pool)
    if not all(pool.score_file(column, shard).is_file() for shard in shards):
        with tqdm(desc=f"score {pool.folder.name} by {column}", unit="images") as bar:
            for shard in shards:
                file = pool.score_file(column, shard)
                if not file.is_file():
                    begun = file.with_name(file.name.replace("scores", UNFINISHED))
                    known |= known_scores(begun, column) if begun.is_file() else {}
                    table = _score_shard(load, column, shard, known, batch_size, bar, begun)
                    write_table(file, table)
                # From the file, also where it was just written: rounded as a later run reads it.
                known |= known_scores(file, column)
    processes().wait_for_everyone()


def _score_shard(
    load: Callable[[], Scorer],
    column: str,
    shard: Path,
    known: dict[bytes, float],
    batch_size: int,
    bar: Any,
    begun: Path,
) -> Any:
    import pyarrow as pa

    rows = read_table(shard, ("candidate_id", "prompt", "image")).to_pylist()
    contents = [content(row["image"]["bytes"], row["prompt"]) for row in rows]
    first: dict[bytes, dict[str, Any]] = {}
    for key, row in zip(contents, rows, strict=True):
        first.setdefault(key, row)
    new = [key for key in first if key not in known]
    scores = {key: known[key] for key in first if key in known}

    def write(file: Path, of: dict[bytes, float]) -> None:
        values = pa.array(of.values(), pa.float32())
        write_table(file, pa.table({CONTENT: pa.array(of.keys(), pa.binary(16)), column: values}))

    with saved_when_stopped(begun, scores, write):
        parts = batched([(key, first[key]) for key in new], batch_size)
        for part, images in overlapped(_decoded, parts, threads=1):
            values = torch.as_tensor(load()(images, [row["prompt"] for _, row in part]))
            check_scores(values, column, [row for _, row in part])
            scores |= {key: value for (key, _), value in zip(part, values.tolist(), strict=True)}
            bar.update(len(part))
    bar.update(len(rows) - len(new))
    return pa.table(
        {
            "candidate_id": [row["candidate_id"] for row in rows],
            column: pa.array([scores[key] for key in contents], pa.float32()),
            CONTENT: pa.array(contents, pa.binary(16)),
        }
    )


Part = Sequence[tuple[bytes, dict[str, Any]]]
"""Rows to score together, each with the hash of its content."""


def _decoded(part: Part) -> tuple[Part, list[Image.Image]]:
    return part, [decode(row["image"]["bytes"], row["candidate_id"]) for _, row in part]


def _combine_missing(pool: Pool, choice: ScorerChoice) -> None:
    """Write an ensemble's column, which all of the pool's scores enter."""
    import numpy as np
    import pyarrow as pa

    column = choice.column
    missing = [shard for shard in _own(pool) if not pool.score_file(column, shard).is_file()]
    if missing:
        numbers: dict[str, int] = {}
        groups = [
            numbers.setdefault(item_of(row), len(numbers))
            for shard in pool.shards()
            for row in read_table(shard, ITEM).to_pylist()
        ]
        scores = np.stack([_column(pool, name) for name in choice.members], 1)
        combined = ENSEMBLES.bind(choice.name, choice.options)(scores, np.array(groups))
        values = torch.as_tensor(combined)
        start = 0
        for shard in pool.shards():
            ids = read_table(shard, ("candidate_id", "prompt")).to_pylist()
            part = values[start : start + len(ids)]
            start += len(ids)
            if shard in missing:
                check_scores(part, column, ids)
                table = {
                    "candidate_id": [row["candidate_id"] for row in ids],
                    column: pa.array(part.tolist(), pa.float32()),
                }
                write_table(pool.score_file(column, shard), pa.table(table))
    processes().wait_for_everyone()


def _column(pool: Pool, name: str) -> Any:
    """Return a column of scores in pool order, float64."""
    import numpy as np

    parts = [read_table(pool.score_file(name, shard), (name,)) for shard in pool.shards()]
    if any(part[name].null_count for part in parts):
        raise TastemakerError(
            f"{name!r} has no score for some images of {pool.folder}; an ensemble takes columns"
            " that have one for each."
        )
    return np.concatenate([part[name].to_numpy() for part in parts]).astype(np.float64)


def check_scores(values: torch.Tensor, column: str, rows: Sequence[dict[str, Any]]) -> None:
    """Refuse what a scorer returned unless it is a finite number per candidate.

    Args:
        values: What it returned.
        column: Its column.
        rows: The candidates, with candidate_id and prompt.

    Raises:
        TastemakerError: The shape is another, or a score is NaN or infinite.
    """
    if values.shape != (len(rows),):
        raise TastemakerError(
            f"scorer {column!r} returned shape {tuple(values.shape)} for {len(rows)} images;"
            " it must return one number per image."
        )
    for row, value in zip(rows, values.tolist(), strict=True):
        if value != value or value in (float("inf"), float("-inf")):
            raise TastemakerError(
                f"scorer {column!r} returned {value} for candidate {row['candidate_id']}"
                f" ({row['prompt']!r}); mend the scorer or remove the image. No score was lost."
            )
