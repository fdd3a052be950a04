"""ROOM 1, other door: compared images with people's verdicts to a scored pool.

The verdicts become a column of scores, `human`, so that the rooms that follow need not know where
candidates come from: rule `{name: best_worst, scorer: human}` pairs by the verdicts, and any other
scorer relabels the same comparisons.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tastemaker.candidates import candidate_table
from tastemaker.comparisons import Comparison, parquet_files
from tastemaker.errors import TastemakerError
from tastemaker.files import config_key, read_table, write_table
from tastemaker.images import decode, encode_png, square
from tastemaker.records import Pool, Stage
from tastemaker.registry import COMPARISONS
from tastemaker.sections import ImportConfig

HUMAN = "human"
"""Column of the verdicts: 1 for the image preferred, 0 for the other, 0.5 for both on a tie."""


def import_comparisons(config: ImportConfig, output: Path) -> Path:
    """Turn compared images into a pool with a column of verdicts.

    Each comparison is a group of its own, also where a prompt occurs again. Comparisons with an
    image that cannot be read or a prompt that is empty are left out, counted and named.

    Args:
        config: Source, format and size.
        output: Folder of the pool.

    Returns:
        `output`, a finished pool with the scores `human`.

    Raises:
        TastemakerError: The source is missing or of another format, holds no usable comparison, or
            the disk is full.
    """
    choice = config.comparisons
    source = str(choice.options["path"])
    files = [[file.name, file.stat().st_size] for file in parquet_files(Path(source))]
    stage = Stage(output, "import", {**config.model_dump(mode="json"), "inputs": files})
    if stage.begin().finished:
        return output
    verdicts = Stage(output / "scores" / HUMAN, f"score {HUMAN}", {"pool": stage.key}).begin()
    rows = itertools.islice(COMPARISONS.bind(choice.name, choice.options)(), config.limit)
    taken = left_out = 0
    for index in itertools.count():
        part = list(itertools.islice(rows, config.shard_size // 2))
        if not part:
            break
        usable = _import_shard(Pool(output), index, part, config.size)
        taken, left_out = taken + usable, left_out + len(part) - usable
    if not taken:
        raise TastemakerError(
            f"{source} gave no usable comparison ({left_out} left out); check the source."
        )
    print(f"imported {taken} comparisons, left out {left_out}")
    verdicts.finish(scorer=HUMAN)
    stage.finish(comparisons=taken, left_out=left_out)
    return output


def _import_shard(pool: Pool, index: int, part: Sequence[Comparison], size: int | None) -> int:
    """Write a shard and its verdicts where missing; return how many comparisons it holds."""
    import pyarrow as pa

    shard = pool.shard(index)
    scores = pool.score_file(HUMAN, shard)
    if shard.is_file() and scores.is_file():
        return int(read_table(shard, ("candidate_id",)).num_rows) // 2
    rows: list[dict[str, Any]] = []
    for comparison in part:
        try:
            rows += _candidates(comparison, size)
        except TastemakerError as error:
            print(f"left out: {error}")
    verdicts = [row.pop("verdict") for row in rows]
    ids = pa.array([row["candidate_id"] for row in rows], pa.string())
    write_table(shard, candidate_table(rows))
    write_table(scores, pa.table({"candidate_id": ids, HUMAN: pa.array(verdicts, pa.float32())}))
    return len(rows) // 2


def _candidates(comparison: Comparison, size: int | None) -> list[dict[str, Any]]:
    """Both images as rows of a pool, each with its verdict."""
    if not comparison.prompt.strip():
        raise TastemakerError(f"{comparison.where}: the prompt is empty.")
    group = config_key(comparison.where)
    rows = []
    for place, (data, verdict, model) in enumerate(
        zip(comparison.images, comparison.verdicts, comparison.models, strict=True)
    ):
        image = decode(data, f"{comparison.where}, image {place}")
        rows.append(
            {
                "candidate_id": f"{group}-{place}",
                "prompt_id": group,
                "prompt": comparison.prompt.strip(),
                "seed": place,
                "source": "imported",
                "source_id": comparison.where,
                "timestep": None,
                "model": model,
                "image": {"bytes": encode_png(square(image, size)) if size else data, "path": None},
                "verdict": verdict,
            }
        )
    return rows
