"""Formats of captioned images: photographs with their captions."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from tastemaker.core.errors import TastemakerError
from tastemaker.core.reading import json_lines, read_bytes, read_text, require_file
from tastemaker.core.registry import CAPTIONED
from tastemaker.datasets.items import LeftOut, Refused, Source
from tastemaker.datasets.listing import NO_IMAGE, OTHER, SUFFIXES, Listing, passed_over, unnamed
from tastemaker.datasets.parquet import (
    image_bytes,
    not_parquet,
    parquet_columns,
    parquet_files,
    parquet_rows,
)
from tastemaker.storage.files import leads_out, printable

Box = tuple[int, int, int, int]
"""Left, top, right and bottom edge in pixels; right and bottom are outside."""

CAPTION_KEYS = ("text", "caption", "prompt")
"""Keys and columns of a caption; the first that is present counts."""

CaptionKey = Annotated[
    str | None, Field(description=f"Key of the caption; null: {', '.join(CAPTION_KEYS)}.")
]


@dataclass(frozen=True)
class Captioned:
    """An image and its caption.

    Args:
        where: File, or file and row, unique within the source.
        image: Encoded bytes, or their file.
        caption: Description of the image.
        box: The part to keep, in pixels of the upright image; None: the whole image.
    """

    where: str
    image: bytes | Path
    caption: str
    box: Box | None = None

    def encoded(self) -> bytes:
        """Return the encoded bytes.

        Raises:
            TastemakerError: The file is missing or may not be read.
        """
        if isinstance(self.image, bytes):
            return self.image
        return read_bytes(self.image)


@CAPTIONED.register("folder")
def folder(
    *,
    path: Annotated[str, Field(description="A folder of images.")],
    caption: CaptionKey = None,
) -> Source[Captioned]:
    """A folder of images with metadata.jsonl, or with the caption of each in a .txt of its name.

    A line of `metadata.jsonl` is `{"file_name": "a.jpg", "text": "a cat"}`, if wanted with
    `"box": [left, top, right, bottom]`, the part to keep; images that it does not name are not
    looked at. Without it all images are taken in order of their paths, also those of folders
    inside.

    Args:
        path: The folder.
        caption: Key of the caption in `metadata.jsonl`.

    Returns:
        Its images.

    Raises:
        TastemakerError: No such folder, or no image in it.
    """
    root = Path(path)
    if not root.is_dir():
        known = ", ".join(CAPTIONED.names())
        raise TastemakerError(f"{path!r} is not a folder of images (named formats: {known}).")
    metadata = root / "metadata.jsonl"
    if os.path.lexists(metadata):
        require_file(metadata)
        beside = unnamed(metadata, _names(metadata))
        return Source(_named(metadata), _described(metadata, caption), beside)
    if caption is not None:
        raise TastemakerError(f"caption={caption} is a key of metadata.jsonl, but {path} has none.")
    names = _images(root)
    files = (root / name for name in names)
    beside = passed_over(root, functools.partial(_no_image, root))
    twins = (twin for name in names if (twin := (root / name).with_suffix(".txt")).is_file())
    return Source(chain(files, twins), _twins(root, names), beside)


@CAPTIONED.register("parquet")
def parquet(
    *,
    path: Annotated[str, Field(description="A parquet file, or a folder of them.")],
    caption: CaptionKey = None,
) -> Source[Captioned]:
    """Parquet with the columns image (bytes, or a struct with bytes), text, and if wanted box.

    Args:
        path: A file, or a folder whose parquet files are read in order of their names.
        caption: Column of the caption.

    Returns:
        Its images in order of rows.

    Raises:
        TastemakerError: No such file, no parquet in the folder, a torn file or a missing column.
    """
    files = parquet_files(Path(path))
    columns = [_caption_column(file, caption) for file in files]
    return Source(files, _from_rows(files, columns), not_parquet(Path(path)))


def _named(file: Path) -> Iterator[Path]:
    """metadata.jsonl itself, and the images that it names and that are there."""
    yield file
    for row in _metadata(file):
        if isinstance(row, Refused):
            raise row.error()
        if (named := file.parent / row["file_name"]).is_file():
            yield named


def _names(file: Path) -> Iterator[str]:
    return (row["file_name"] for row in _metadata(file) if isinstance(row, dict))


def _no_image(root: Path, place: str) -> str | None:
    """Return why a file of a folder without metadata.jsonl is not read; None where it is."""
    file = root / place
    if file.suffix.lower() in SUFFIXES:
        return None if file.is_file() else OTHER
    if file.suffix != ".txt":
        return OTHER
    return None if any(file.with_suffix(each).is_file() for each in SUFFIXES) else NO_IMAGE


def _metadata(file: Path) -> Iterator[dict[str, Any] | Refused]:
    """Read metadata.jsonl line by line; every file name is inside the folder."""
    empty = True
    try:
        for number, value in json_lines(file):
            empty = False
            row = _row(value, file.parent)
            yield row if isinstance(row, dict) else Refused(f"{file}, line {number}", row)
    except TastemakerError as error:
        empty = False
        yield Refused(str(file), str(error))
    if empty:
        yield Refused(str(file), "it names no image; add one line per image, or remove the file")


def _row(row: Any, root: Path) -> dict[str, Any] | str:
    """Return a line's object, or its defect."""
    if isinstance(row, TastemakerError):
        return str(row)
    name = row.get("file_name") if isinstance(row, dict) else None
    if not name or not isinstance(name, str):
        return "it has no 'file_name'; it must name an image"
    if leads_out(name):
        return (
            f"file_name {name!r} leads out of the folder; move the image into {root} and name it"
            " from there"
        )
    return dict(row)


def _described(file: Path, key: str | None) -> Iterator[Captioned | LeftOut]:
    for row in _metadata(file):
        if isinstance(row, Refused):
            yield row
            continue
        name = row["file_name"]
        where = name if row.get("box") is None else f"{name}, box {row['box']}"
        keys = (key,) if key else CAPTION_KEYS
        yield _captioned(printable(where), file.parent / name, row, keys)


def _images(root: Path) -> Listing:
    """List all images below a folder in order; hidden ones are left out."""
    found = Listing()
    for folder, below, names in os.walk(root):
        below[:] = (name for name in below if not name.startswith("."))
        for name in names:
            path = Path(folder, name)
            if path.suffix.lower() in SUFFIXES and not name.startswith(".") and path.is_file():
                place = path.relative_to(root).as_posix()
                found.add(place, place)
    if not found:
        held = "parquet: set images.name=parquet" if any(root.glob("*.parquet")) else "no image"
        raise TastemakerError(f"{root} holds {held} (looked for {', '.join(sorted(SUFFIXES))}).")
    return found


def _twins(root: Path, names: Iterable[str]) -> Iterator[Captioned | LeftOut]:
    for name in names:
        image = root / name
        where, twin = printable(name), image.with_suffix(".txt")
        if not os.path.lexists(twin):
            yield LeftOut(where, f"no caption; write it in {twin.name}, or all in metadata.jsonl")
            continue
        try:
            yield Captioned(where, image, read_text(twin))
        except TastemakerError as error:
            yield LeftOut(where, str(error))


def _caption_column(file: Path, key: str | None) -> str:
    held = parquet_columns(file)
    wanted = (key,) if key else CAPTION_KEYS
    found = [name for name in wanted if name in held]
    if "image" not in held or not found:
        lacking = f"caption ({' or '.join(wanted)})" if "image" in held else "'image'"
        raise TastemakerError(
            f"{file} has no column {lacking}; it has {held}. images.caption names the caption's."
        )
    return found[0]


def _from_rows(files: Sequence[Path], columns: Sequence[str]) -> Iterator[Captioned | LeftOut]:
    for file, column in zip(files, columns, strict=True):
        try:
            for number, row in parquet_rows(file, ("image", column), ("box",)):
                where = f"{file.name}, row {number}"
                yield _captioned(where, image_bytes(row["image"]), row, (column,))
        except TastemakerError as error:
            yield Refused(file.name, str(error))


def _captioned(
    where: str, image: bytes | Path, row: dict[str, Any], keys: Sequence[str]
) -> Captioned | LeftOut:
    """Read caption and box of a row."""
    captions = [row[key] for key in keys if row.get(key) is not None]
    if not captions:
        words = f"no caption ({' or '.join(keys)}); it has {sorted(row)}, images.caption names it"
        return LeftOut(where, words)
    if not isinstance(captions[0], str):
        return LeftOut(where, f"the caption is {captions[0]!r}, not text")
    if not image:
        return LeftOut(where, "the image is empty")
    try:
        return Captioned(where, image, captions[0], _box(row.get("box")))
    except (TypeError, ValueError, OverflowError):
        return LeftOut(where, f"box {row['box']!r} is not [left, top, right, bottom] in pixels")


def _box(value: Any) -> Box | None:
    if value is None:
        return None
    left, top, right, bottom = (round(edge) for edge in value)
    return left, top, right, bottom
