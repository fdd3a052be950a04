"""Committed scores that a comparison goes on from, and work that processes share.

Scores are of some settings: `common` ones, and those of each row. A folder of runs keeps them in
settings.json, a committed table in its schema. Rows of equal settings are taken, others are not.
"""

import contextlib
import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tastemaker.core.content_hash import file_content
from tastemaker.core.errors import TastemakerError
from tastemaker.nano import WEIGHTS
from tastemaker.storage.artifact import first_difference
from tastemaker.storage.files import read_json, write_json
from tastemaker.storage.locks import exclusive
from tastemaker.storage.parquet import whole_parquet, write_table

KEY = b"settings"
Settings = dict[str, dict[str, Any]]
"""`common`: what all scores depend on; `rows`: by name of a row what it alone depends on."""


def settings(rows: Mapping[str, Any], folder: Path = WEIGHTS, **common: Any) -> Settings:
    """Describe what scores depend on, as JSON gives it back.

    Args:
        rows: What each row is.
        folder: Of the weights that draw and score.
        **common: Sizes, seeds, constants.
    """
    digest = blake2b(digest_size=8)
    for file in sorted(folder.rglob("*.safetensors")):
        digest.update(f"{file.relative_to(folder).as_posix()} {file_content(file)}\n".encode())
    return json.loads(
        json.dumps({"common": {**common, "weights": digest.hexdigest()}, "rows": dict(rows)})
    )


def settle(root: Path, current: Settings) -> None:
    """Record settings in a folder of runs.

    Raises:
        TastemakerError: Scores of other settings lie there.
    """
    file = root / "settings.json"
    there = read_json(file) if file.is_file() else current
    rows = there["rows"] | current["rows"]
    old, new = ({**each, "rows": rows | each["rows"]} for each in (there, current))
    if old != new:
        raise TastemakerError(
            f"{root} has scores of other settings ({first_difference(old, new)}); choose another"
            " folder, or delete it."
        )
    write_json(file, new)


def read(file: Path) -> pa.Table:
    """Read a table of scores, in which `prompt` may be a number, as in no table of the library."""
    with whole_parquet(file), pq.ParquetFile(file, page_checksum_verification=True) as opened:
        return opened.read()


def commit(file: Path, table: pa.Table, current: Settings) -> None:
    """Write a table of scores with their settings."""
    write_table(file, table.replace_schema_metadata({KEY: json.dumps(current)}))


def committed(file: Path, current: Settings, column: str = "row") -> pa.Table | None:
    """Read the committed scores that are of these settings, and print which are not.

    Args:
        file: Of `commit`; it may be missing.
        current: Settings of today.
        column: Of the table, with the name of a row; what `Settings` has no row for depends on
            `common` alone.

    Returns:
        None where there are none.
    """
    if not file.is_file():
        return None
    table = read(file)
    there = json.loads((table.schema.metadata or {}).get(KEY, b'{"common": null, "rows": {}}'))
    table = table.replace_schema_metadata(None)
    if there["common"] != current["common"]:
        why = first_difference(there["common"], current["common"])
        print(f"{file} is of other settings ({why}): none of it is taken.", flush=True)
        return None
    rows, old = current["rows"], there["rows"]
    other = {row for row in rows.keys() | old.keys() if row in old and rows.get(row) != old[row]}
    if other:
        names = ", ".join(sorted(other))
        print(f"{file}: rows of other settings are not taken: {names}.", flush=True)
        table = table.filter(pc.invert(pc.is_in(table[column], pa.array(sorted(other)))))
    return table


def grouped(table: pa.Table, names: Sequence[str]) -> dict[tuple, pa.Table]:
    """Split a table by the values of columns, rows in order."""
    places: dict[tuple, list[int]] = defaultdict(list)
    for place, key in enumerate(zip(*(table[name].to_pylist() for name in names), strict=True)):
        places[key].append(place)
    return {key: table.take(rows) for key, rows in places.items()}


def share(root: Path, work: Mapping[str, Callable[[], object]]) -> None:
    """Do pieces of work side by side with other processes that have the same folder.

    What another process is at is left to it, and looked at again at the end: it is finished by
    then, or by this process, if the other one was killed.

    Args:
        root: The folder.
        work: By name; a piece that is done already must find that out itself.
    """
    left = []
    # A lock removes the folder that it made, under a process that is about to lock in it.
    (root / "shared").mkdir(parents=True, exist_ok=True)
    for name, piece in work.items():
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(exclusive(_place(root, name), beside=True))
            except TastemakerError:
                left.append(name)
                continue
            piece()
    for name in left:
        with exclusive(_place(root, name), beside=True, waits=True):
            work[name]()


def _place(root: Path, name: str) -> Path:
    return root / "shared" / "".join(each if each.isalnum() else "-" for each in name)
