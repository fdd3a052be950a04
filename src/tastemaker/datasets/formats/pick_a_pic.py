"""Pick-a-Pic's parquet: two images per row with their labels."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from tastemaker.core.batching import streamed
from tastemaker.core.errors import TastemakerError
from tastemaker.core.registry import COMPARISONS, LAYOUTS
from tastemaker.datasets.comparisons import (
    Comparison,
    of_two,
    prompt_of,
    read_comparisons,
    read_labels,
)
from tastemaker.datasets.items import LeftOut, Source
from tastemaker.datasets.parquet import image_bytes, not_parquet, parquet_files, parquet_rows
from tastemaker.storage.files import atomic

NEEDED = ("jpg_0", "jpg_1", "label_0", "caption")
GROUP_ROWS = 1000
GROUP_BYTES = 1 << 25

OPTIONAL = ("label_1", "has_label", "model_0", "model_1", "caption_0", "caption_1")


@COMPARISONS.register("pick_a_pic")
def pick_a_pic(
    *, path: Annotated[str, Field(description="A parquet file, or a folder of them.")]
) -> Source[Comparison]:
    """Parquet in the columns of Pick-a-Pic: jpg_0, jpg_1, label_0, caption.

    `label_0` is 1 where the first image was preferred, 0 where the second was, 0.5 for a tie;
    where `label_0` and `label_1` are both 0, both images are bad. Rows with `has_label` false have
    no verdict, but a scorer can still relabel them.

    Args:
        path: A file, or a folder whose parquet files are read in order of their names.

    Returns:
        Its comparisons in order of rows.

    Raises:
        TastemakerError: No such file, or no parquet in the folder.

    References:
        Kirstain et al., Pick-a-Pic, arXiv 2305.01569.
    """
    if not os.path.lexists(path):
        known = ", ".join(COMPARISONS.names())
        raise TastemakerError(
            f"{path} does not exist, and is not a format of compared images ({known})."
        )
    files = parquet_files(Path(path))
    return Source(files, _rows(files), not_parquet(Path(path)))


@LAYOUTS.register("pick_a_pic")
def write_pick_a_pic(
    comparisons: Iterator[Comparison],
    folder: Path,
    *,
    rows: Annotated[int, Field(ge=1, description="Rows per file.")] = 10_000,
) -> None:
    """Parquet in the columns of Pick-a-Pic, which any tool for that data set reads.

    Args:
        comparisons: Of two images each.
        folder: Output folder.
        rows: Rows per file.
    """
    for number, part in enumerate(streamed(comparisons, rows)):
        _write(folder / f"{number:05d}.parquet", part)


def _rows(files: Sequence[Path]) -> Iterator[Comparison | LeftOut]:
    for file in files:
        rows = parquet_rows(file, NEEDED, OPTIONAL)
        yield from read_comparisons(file.name, "row", rows, _comparison)


def _comparison(where: str, row: Mapping[str, Any]) -> Comparison:
    # `has_label` comes before the labels, which say nothing where it is false.
    label = read_labels(row) if row.get("has_label", True) else None
    return of_two(
        where,
        prompt_of(row, ("caption",)),
        (image_bytes(row["jpg_0"]), image_bytes(row["jpg_1"])),
        label,
        (row.get("model_0") or "", row.get("model_1") or ""),
    )


def _write(file: Path, comparisons: Iterator[Comparison]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = {
        "caption": pa.string(),
        "jpg_0": pa.binary(),
        "jpg_1": pa.binary(),
        "label_0": pa.float64(),
        "label_1": pa.float64(),
        "has_label": pa.bool_(),
        "model_0": pa.string(),
        "model_1": pa.string(),
    }
    schema = pa.schema(kinds.items())
    with (
        atomic(file) as temporary,
        pq.ParquetWriter(temporary, schema, compression="zstd") as writer,
    ):
        for part in _groups(comparisons):
            writer.write_table(pa.Table.from_pylist(part, schema=schema))


def _groups(comparisons: Iterator[Comparison]) -> Iterator[list[dict[str, Any]]]:
    """Group rows that are written, and later read, together: many small images or a few large."""
    rows: list[dict[str, Any]] = []
    size = 0
    for comparison in comparisons:
        rows.append(_row(comparison))
        size += sum(map(len, comparison.images))
        if len(rows) == GROUP_ROWS or size > GROUP_BYTES:
            yield rows
            rows, size = [], 0
    if rows:
        yield rows


def _row(comparison: Comparison) -> dict[str, Any]:
    labels = (0.0, 0.0) if comparison.bad else comparison.verdicts
    return {
        "caption": comparison.prompt,
        "jpg_0": comparison.images[0],
        "jpg_1": comparison.images[1],
        "label_0": labels[0],
        "label_1": labels[1],
        "has_label": comparison.judged,
        "model_0": comparison.models[0],
        "model_1": comparison.models[1],
    }
