"""Read delimited tables, .csv and .tsv, without losing a row or a word."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tastemaker.core.errors import TastemakerError
from tastemaker.core.reading import MOST_LINE, decode_text, read_bytes


def delimited_rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Read the rows of a .csv or .tsv file with a header; blank rows are skipped.

    In a .tsv, where many programs write quotes as they are, quotes that do not come in pairs are
    taken for plain characters.

    Yields:
        The line at which a row ends, from 1, and its fields by column.

    Raises:
        TastemakerError: As for `read_text`; a quote that is not closed, a row with more fields
            than the header, or a column that is there twice.
    """
    text = decode_text(read_bytes(path), path)
    mark = "\t" if path.suffix.lower() == ".tsv" else ","
    try:
        try:
            rows = _split(text, mark, csv.QUOTE_MINIMAL)
        except csv.Error:
            if mark != "\t":
                raise
            rows = _split(text, mark, csv.QUOTE_NONE)
    except csv.Error as error:
        raise TastemakerError(
            f"{path}, {error}; close every quote, and double those within a field."
        ) from None
    header = rows[0][1] if rows else []
    twice = next((name for name in header if header.count(name) > 1), None)
    if twice is not None:
        raise TastemakerError(f"{path} has the column {twice!r} twice; rename one.")
    for number, fields in rows[1:]:
        if any(fields[len(header) :]):
            raise TastemakerError(
                f"{path}, line {number} has {len(fields)} fields, but the header {len(header)};"
                " put a field that contains the separator in quotes."
            )
        yield number, dict(zip(header, fields, strict=False))


def _split(text: str, mark: str, quoting: Any) -> list[tuple[int, list[str]]]:
    """Rows that are not blank, each with the number of its last line.

    Raises:
        csv.Error: A quote is not closed or is in the wrong place; it begins with the line.
    """
    csv.field_size_limit(MOST_LINE)
    lines = io.StringIO(text, newline="")
    reader = csv.reader(lines, delimiter=mark, quoting=quoting, strict=True)
    rows = []
    end = 0
    try:
        for fields in reader:
            end = reader.line_num
            if len(fields) > 1 or "".join(fields).strip():
                rows.append((end, fields))
    except csv.Error as error:
        raise csv.Error(f"the row from line {end + 1} on: {error}") from None
    return rows
