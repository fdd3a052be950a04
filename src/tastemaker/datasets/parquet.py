"""Parquet that others wrote: its files, its columns, and its rows a few at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tastemaker.core.errors import TastemakerError
from tastemaker.core.reading import require_file
from tastemaker.datasets.items import LeftOut
from tastemaker.datasets.listing import OTHER, passed_over
from tastemaker.storage.parquet import whole_parquet

ROWS_AT_ONCE = 16
"""Rows in memory together: each may hold a photograph of several megabytes."""

BUFFER = 1 << 20
"""Bytes read at once of each column: without a bound, a whole row group would be in memory."""


def parquet_files(path: Path) -> list[Path]:
    """Return a parquet file, or those of a folder in order of their names.

    Raises:
        TastemakerError: The file does not exist, or the folder has none.
    """
    if not path.is_dir():
        require_file(path)
        return [path]
    files = sorted(path.glob("*.parquet"))
    if not files:
        raise TastemakerError(f"{path} has no .parquet file.")
    return files


def not_parquet(path: Path) -> Iterator[LeftOut]:
    """List the files beside the parquet files of a folder."""
    return passed_over(path, lambda place: None if place.endswith(".parquet") else OTHER, False)


def parquet_columns(file: Path) -> list[str]:
    """Return the names of a file's columns.

    Raises:
        TastemakerError: The file is torn.
    """
    import pyarrow.parquet as pq

    require_file(file)
    with whole_parquet(file):
        return list(pq.read_schema(file).names)


def parquet_rows(
    file: Path, needed: Sequence[str], optional: Sequence[str] = ()
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield rows with their numbers, a few in memory at a time.

    Args:
        file: A parquet file.
        needed: Required columns.
        optional: Columns that may be missing.

    Yields:
        The row's number from 0, and its values by column.

    Raises:
        TastemakerError: A column is missing, or the file is torn.
    """
    import pyarrow.parquet as pq

    held = parquet_columns(file)
    missing = [name for name in needed if name not in held]
    if missing:
        raise TastemakerError(f"{file} has no column {missing[0]!r}; it has {held}.")
    columns = [name for name in held if name in {*needed, *optional}]
    number = 0
    with whole_parquet(file), pq.ParquetFile(file, buffer_size=BUFFER, pre_buffer=False) as opened:
        for batch in opened.iter_batches(ROWS_AT_ONCE, columns=columns, use_threads=False):
            for row in batch.to_pylist():
                yield number, row
                number += 1


def image_bytes(value: Any) -> bytes:
    """Read an image column of plain bytes, or of `datasets`' kind with bytes inside.

    Args:
        value: A cell of the column.

    Returns:
        The encoded bytes; empty where the cell has none.
    """
    held = value.get("bytes") if isinstance(value, dict) else value
    return held if isinstance(held, bytes) else b""
