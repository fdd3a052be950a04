"""Formats of compared images: two pictures of a prompt, and which one people preferred."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field

from tastemaker.errors import TastemakerError
from tastemaker.parquet import image_bytes, parquet_files, parquet_rows
from tastemaker.registry import COMPARISONS

NEEDED = ("jpg_0", "jpg_1", "label_0", "caption")
OPTIONAL = ("has_label", "model_0", "model_1")


@dataclass(frozen=True)
class Comparison:
    """Two images of one prompt, and which was preferred.

    Args:
        where: File and row, unique within the source.
        prompt: The text that both were made from.
        images: Encoded bytes of both.
        verdicts: 1 and 0, or 0.5 and 0.5 for a tie.
        models: What drew them; empty where unknown.
    """

    where: str
    prompt: str
    images: tuple[bytes, bytes]
    verdicts: tuple[float, float]
    models: tuple[str, str]


@COMPARISONS.register("pick_a_pic")
def pick_a_pic(
    *, path: Annotated[str, Field(description="A parquet file, or a folder of them.")]
) -> Iterator[Comparison]:
    """Parquet in the columns of Pick-a-Pic: jpg_0, jpg_1, label_0, caption.

    `label_0` is 1 where the first image was preferred, 0 where the second was, 0.5 for a tie. Rows
    with `has_label` false count as ties: without a verdict, but a scorer can still relabel them.

    Args:
        path: A file, or a folder whose parquet files are read in order of their names.

    Yields:
        Comparisons in order of rows.

    Raises:
        TastemakerError: No such file, no parquet in the folder, a missing column, or a label that
            is no verdict.

    References:
        Kirstain et al., Pick-a-Pic, arXiv 2305.01569.
    """
    for file in parquet_files(Path(path)):
        for number, row in parquet_rows(file, NEEDED, OPTIONAL):
            where = f"{file.name}, row {number}"
            label = row["label_0"] if row.get("has_label", True) else 0.5
            if label not in (0, 0.5, 1):
                raise TastemakerError(f"{where}: label_0 is {label!r}; it must be 0, 0.5 or 1.")
            yield Comparison(
                where=where,
                prompt=row["caption"] or "",
                images=(image_bytes(row["jpg_0"]), image_bytes(row["jpg_1"])),
                verdicts=(float(label), 1.0 - float(label)),
                models=(row.get("model_0") or "", row.get("model_1") or ""),
            )
