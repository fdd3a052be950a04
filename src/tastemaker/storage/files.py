"""Files that appear whole or not at all: text, JSON and parquet, and hashes of what made them."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from tastemaker.core.batching import streamed
from tastemaker.core.errors import TastemakerError
from tastemaker.core.reading import open_file, parse_json, read_text, require_file

if TYPE_CHECKING:
    import pyarrow as pa
    import torch

ROWS_AT_ONCE = 4096
"""Rows without images that are written, and later read, together."""

UMASK = os.umask(0o022)
"""What the user's files are not open to; it can be read by setting it alone."""
os.umask(UMASK)


def temporary_of(path: Path) -> Path:
    """Name what will be `path` once it is whole; `claims` knows such names after a kill."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary path that becomes `path` when the block ends well.

    Args:
        path: The file to write; its folder is made where missing.

    Yields:
        A path in the same folder, for the caller to write.

    Raises:
        TastemakerError: The disk is full, not writable or gone, or what is there is no file, such
            as a device; the half-written file is removed.
    """
    temporary = temporary_of(path)
    try:
        with disk_errors(path):
            if path.exists() and not path.is_file():
                raise OSError(errno.EEXIST, "it exists and is no file")
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            # Some libraries write for the owner alone.
            temporary.chmod(0o666 & ~UMASK)
            temporary.replace(path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


@contextlib.contextmanager
def written_folder(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder, all of which comes to `folder` when the block ends well.

    Args:
        folder: Where to; made where missing. Files and folders of the same names are replaced.

    Yields:
        An empty folder inside, for the caller to fill.

    Raises:
        TastemakerError: The disk is full, not writable or gone; what was written is removed.
    """
    temporary = temporary_of(folder / "whole")
    try:
        with disk_errors(folder):
            temporary.mkdir(parents=True)
            yield temporary
            for part in sorted(temporary.iterdir()):
                if (folder / part.name).is_dir():
                    shutil.rmtree(folder / part.name)
                part.replace(folder / part.name)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn what the system, or safetensors, says of a file that cannot be written into one error.

    Args:
        path: What is written, for the message.

    Raises:
        TastemakerError: The block raised an `OSError` or a `SafetensorError`.
    """
    try:
        yield
    except Exception as error:
        # By name: safetensors is not imported for it, and its errors have no common base.
        if not isinstance(error, OSError) and type(error).__name__ != "SafetensorError":
            raise
        why = getattr(error, "strerror", None) or error
        raise TastemakerError(
            f"cannot write {path}: {why}. Free some space or choose another folder,"
            " then run the same command again: finished files are kept."
        ) from error


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, data: Any) -> None:
    """Write JSON atomically, indented, keys in the order given; NaN is refused."""
    write_text(path, json.dumps(data, indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        TastemakerError: The file is missing or torn.
    """
    return parse_json(read_text(path), path)


def read_record(path: Path, **fields: type) -> dict[str, Any]:
    """Read a JSON object that this package wrote.

    Args:
        path: The file.
        **fields: Keys that it must have, with the type of each value.

    Returns:
        The object, whatever else it has.

    Raises:
        TastemakerError: The file is missing, torn, or of another shape.
    """
    return _shaped(read_json(path), path, "", fields)


def _shaped(data: Any, path: Path, where: str, fields: Mapping[str, type]) -> dict[str, Any]:
    """Return a JSON object that has the fields."""
    if not isinstance(data, dict):
        raise damaged(path, f"{where}not an object but {type(data).__name__}")
    for name, kind in fields.items():
        if not isinstance(data.get(name), kind):
            raise damaged(path, f"{where}no {name!r} of type {kind.__name__}")
    return data


class DamagedError(TastemakerError):
    """A file that this package wrote is not what it wrote."""


def damaged(path: Path, why: str) -> DamagedError:
    """Say what is wrong with a file that this package wrote, and what to do."""
    return DamagedError(
        f"{path} is damaged or not of this program ({why}). Restore it, or delete it and run"
        " the command that made it again."
    )


def leads_out(name: str) -> bool:
    """Whether a file name in somebody's data leads out of the folder or archive that it stands in.

    Example:
        >>> leads_out("images/a.png"), leads_out("../a.png"), leads_out("/etc/a.png")
        (False, True, True)
    """
    place = PurePath(name)
    return place.is_absolute() or bool(place.drive) or ".." in place.parts


def printable(name: str) -> str:
    """A file's name where it is no valid Unicode: as text that every file and terminal takes."""
    return name.encode("utf-8", "backslashreplace").decode()


def read_json_lines(path: Path, **fields: type) -> list[dict[str, Any]]:
    """Read a file of one JSON object a line that this package wrote.

    Args:
        path: The file; missing reads as empty.
        **fields: Keys that each object must have, with the type of each value.

    Returns:
        The objects; a last line that is torn, as a process that was killed leaves it, is left out.

    Raises:
        TastemakerError: Any other line is torn or of another shape.
    """
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            if number == len(lines):  # what follows the last line feed
                break
            raise damaged(path, f"line {number}: not JSON") from None
        rows.append(_shaped(row, path, f"line {number}: ", fields))
    return rows


def write_table(path: Path, table: pa.Table) -> None:
    """Write one parquet file atomically."""
    import pyarrow.parquet as pq

    with atomic(path) as temporary:
        pq.write_table(table, temporary, compression="zstd", write_page_checksum=True)


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]], schema: pa.Schema) -> int:
    """Write one parquet file atomically from a stream of rows, a few of which are in memory.

    Args:
        path: The file; where there is no row, none is written.
        rows: Values by column.
        schema: Columns and their types.

    Returns:
        How many rows there were.
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
        held = pq.read_schema(path).names
        missing = [name for name in columns or () if name not in held]
        if missing:
            raise TastemakerError(f"{path} has no column {missing[0]!r}; it has {held}.")
        table = pq.read_table(
            path, columns=list(columns) if columns else None, page_checksum_verification=True
        )
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


def write_tensors(
    path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Write a safetensors file atomically, with the same bytes for the same content.

    Args:
        path: The file.
        tensors: On any device.
        metadata: Strings to keep beside them.

    Raises:
        TastemakerError: The disk is full.
    """
    from safetensors.torch import save_file

    contiguous = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    with atomic(path) as temporary:
        save_file(contiguous, temporary, dict(metadata or {}))
        sort_header(temporary)


def read_tensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Read a file of `write_tensors`, once its checksum is right.

    Args:
        path: The file.

    Returns:
        Its tensors on the CPU, and its metadata.

    Raises:
        DamagedError: It is torn, or not what was written.
        TastemakerError: It is missing or cannot be read.
    """
    from safetensors.torch import load_file

    with open_file(path) as file:
        try:
            size = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(min(size, path.stat().st_size)))
            metadata = header["__metadata__"]
            held = metadata.pop(CHECKSUM)
        except (ValueError, LookupError, TypeError):
            raise damaged(path, "its header cannot be read") from None
        digest = _digest(header)
        for part in iter(lambda: file.read(1 << 20), b""):
            digest.update(part)
        if digest.hexdigest() != held:
            raise damaged(path, "its checksum is wrong")
    return load_file(path), metadata


CHECKSUM = "checksum"
"""In a file's metadata: hash of the rest of its header and of its tensors."""


def _digest(header: dict[str, Any]) -> Any:
    """Begin the hash of a file with its header."""
    return hashlib.blake2b(json.dumps(header, sort_keys=True).encode(), digest_size=16)


def sort_header(path: Path) -> None:
    """Rewrite a safetensors file with the keys of its metadata in order, and with a checksum.

    The library writes metadata in the random order of a hash map: without this, equal files would
    differ in their bytes.

    Args:
        path: A whole safetensors file, not yet in use by anybody.
    """
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header, tensors = json.loads(data[8 : 8 + size]), memoryview(data)[8 + size :]
    header["__metadata__"] = dict(sorted(header.get("__metadata__", {}).items()))
    digest = _digest(header)
    digest.update(tensors)
    header["__metadata__"][CHECKSUM] = digest.hexdigest()
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    with atomic(path) as temporary, temporary.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.write(tensors)


def config_key(*parts: Any) -> str:
    """Hash resolved configuration and inputs: the identity of a finished stage.

    Args:
        *parts: JSON-like values.

    Returns:
        16 hex digits.
    """
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
