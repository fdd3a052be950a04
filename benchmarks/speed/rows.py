"""Rows of a benchmark: added to a JSON file one by one, all of them shown as a table."""

import argparse
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tastemaker.storage.files import read_json, write_json


def comparison_parser(
    doc: str | None, models: Sequence[str], rounds: int
) -> argparse.ArgumentParser:
    """Return the options that all comparisons have."""
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", choices=models, required=True)
    parser.add_argument("--batch", type=int, default=16, help="pairs per step")
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument(
        "--output", type=Path, default=Path(__file__).parent, help="folder of the results"
    )
    return parser


def add_measured(
    options: argparse.Namespace,
    file: str,
    name: str,
    measure: Callable[[argparse.Namespace, Path], dict[str, Any]],
    as_table: Callable[[dict[str, Any]], str],
) -> None:
    """Measure a row in a temporary folder, and add it to a file of the options' folder."""
    with tempfile.TemporaryDirectory() as folder:
        row = measure(options, Path(folder))
    add_row(options.output / file, name, row, as_table)


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
