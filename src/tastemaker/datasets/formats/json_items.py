"""Items of a JSON file one after another: a list, or one object per line."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from tastemaker.core.errors import TastemakerError
from tastemaker.core.reading import bounded_integer, check_depth, open_file

CHUNK = 1 << 18
MOST = 1 << 24
"""Most characters of one item."""

_BETWEEN = re.compile(r"[\s,]*")


def json_items(file: Path) -> Iterator[tuple[int, Any]]:
    """Read a list of any length, a part of it at a time.

    Args:
        file: A JSON list, or objects one after another, as in JSON lines.

    Yields:
        Each item with its number from 0.

    Raises:
        TastemakerError: The file is not JSON from some item on, as where it is cut off.
    """
    decoder = json.JSONDecoder(parse_int=bounded_integer)
    number, why, ended = 0, "it is cut off", False
    with open_file(file) as raw:
        opened = io.TextIOWrapper(raw, encoding="utf-8-sig")
        text = _read(opened, file, number)
        listed = text.lstrip().startswith("[")
        place = text.index("[") + 1 if listed else 0
        while True:
            between = _BETWEEN.match(text, place)
            place = between.end() if between else place
            if listed and text.startswith("]", place):
                return
            try:
                item, end = decoder.raw_decode(text, place)
            except json.JSONDecodeError as error:
                end, why = -1, error.msg
            except (RecursionError, ValueError) as error:
                why = "it is nested too deep" if isinstance(error, RecursionError) else str(error)
                raise TastemakerError(f"{file} is not JSON from item {number} on: {why}.") from None
            # A number that ends where the text read ends may go on behind it.
            if end != -1 and (end < len(text) or ended):
                check_depth(item, text[place:end], f"{file}, item {number}")
                yield number, item
                number, place = number + 1, end
                continue
            if ended and place == len(text) and not listed:
                return
            if ended or len(text) - place > MOST:
                raise TastemakerError(f"{file} is not JSON from item {number} on: {why}.")
            more = _read(opened, file, number)
            text, place, ended = text[place:] + more, 0, not more


def _read(opened: IO[str], file: Path, number: int) -> str:
    try:
        return opened.read(CHUNK)
    except UnicodeDecodeError as error:
        why = f"{file} is not UTF-8 from item {number} on ({error.reason})."
        raise TastemakerError(why) from None
