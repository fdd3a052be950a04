"""Parquet files, atomic and checked: written whole or as a stream, with columns of known kinds."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tastemaker.core.batching import streamed
from tastemaker.core.errors import TastemakerError
from tastemaker.core.reading import require_file
from tastemaker.storage.files import atomic, damaged

if TYPE_CHECKING:
    import pyarrow as pa

ROWS_AT_ONCE = 4096
"""Rows without images that are written, and later read, together."""


def write_table(path: Path, table: pa.Table) -> None:
    """Write one parquet file atomically."""
    import pyarrow.parquet as pq

    with atomic(path) as temporary:
        pq.write_table(table, temporary, compression="zstd", write_page_checksum=True)


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]], schema: pa.Schema) -> int:
    """Write one parquet file atomically from a stream of rows, a few of which are in memory.

    Args:
        path: The file; without a row none is written.
        rows: Values by column.
        schema: Columns and their types.

    Returns:
        Number of rows.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    stream = iter(rows)
    first = next(stream, None)
    if first is None:
        return 0
    number = 0
    with (
        atomic(path) as temporary,
        pq.ParquetWriter(temporary, schema, compression="zstd", write_page_checksum=True) as writer,
    ):
        for part in streamed(chain([first], stream), ROWS_AT_ONCE):
            table = pa.Table.from_pylist(list(part), schema=schema)
            writer.write_table(table)
            number += table.num_rows
    return number


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Read one parquet file row by row, a few of which are in memory.

    Args:
        path: A file of `write_rows`.

    Yields:
        Values by column.

    Raises:
        TastemakerError: The file is missing or torn, or a column is of another kind.
    """
    import pyarrow.parquet as pq

    with (
        whole_parquet(path),
        pq.ParquetFile(path, page_checksum_verification=True, pre_buffer=False) as file,
    ):
        for batch in file.iter_batches(ROWS_AT_ONCE, use_threads=False):
            _require_kinds(batch, path)
            yield from batch.to_pylist()


def read_table(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Read one parquet file.

    Raises:
        TastemakerError: The file is missing, torn, or lacks a column, or one is of another kind.
    """
    import pyarrow.parquet as pq

    with whole_parquet(path):
        file = pq.ParquetFile(path, page_checksum_verification=True)
        held = file.schema_arrow.names
        missing = [name for name in columns or () if name not in held]
        if missing:
            raise TastemakerError(f"{path} has no column {missing[0]!r}; it has {held}.")
        # Not `read_table`, which loads pandas.
        table = file.read(list(columns) if columns else None)
        file.close()
    _require_kinds(table, path)
    return table


TEXT_COLUMNS = {"candidate_id", "prompt_id", "prompt", "pair_id", "chosen_id", "rejected_id"}
IMAGE_COLUMN = "image"


def _require_kinds(table: pa.Table | pa.RecordBatch, path: Path) -> None:
    """Refuse columns that every reader relies on where they are of another kind, or have gaps."""
    import pyarrow as pa
    import pyarrow.compute as pc

    for name in table.column_names:
        kind, gaps = table.schema.field(name).type, table[name].null_count
        if pa.types.is_floating(kind):  # scores, of a scorer that may have any name
            continue
        if name in TEXT_COLUMNS:
            fits = pa.types.is_string(kind) or pa.types.is_large_string(kind)
        elif name == IMAGE_COLUMN:
            fits = pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0
            gaps = pc.struct_field(table[name], "bytes").null_count if fits else gaps
        else:
            continue
        if not fits or gaps:
            raise damaged(path, f"column {name!r} is {f'empty in {gaps} rows' if fits else kind}")


@contextlib.contextmanager
def whole_parquet(path: Path) -> Iterator[None]:
    """Turn what pyarrow says of a missing or torn file into one clear error."""
    import pyarrow as pa

    require_file(path)
    try:
        yield
    except (pa.ArrowInvalid, OSError) as error:
        raise TastemakerError(f"{path} is not a whole parquet file: {error}") from None
