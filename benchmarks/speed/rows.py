"""Rows of a benchmark: added to a JSON file one by one, all of them shown as a table."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tastemaker.storage.files import read_json, write_json


def add_row(
    file: Path, name: str, row: dict[str, Any], as_table: Callable[[dict[str, Any]], str]
) -> None:
    """Put a row into a file, and write and print the table of all rows.

    Args:
        file: The JSON file; its table is beside it, with the suffix `.md`.
        name: Of the row; one of the same name is replaced.
        row: Its numbers.
        as_table: Writes all rows as Markdown.
    """
    found = read_json(file) if file.is_file() else {}
    found[name] = row
    write_json(file, found)
    table = as_table(found)
    file.with_suffix(".md").write_text(table, encoding="utf-8")
    print(table, end="")
