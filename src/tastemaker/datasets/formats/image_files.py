"""Images as files of a folder with metadata."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field

from tastemaker.core.errors import TastemakerError
from tastemaker.core.reading import read_bytes
from tastemaker.datasets.listing import SUFFIXES, Listing
from tastemaker.storage.files import leads_out

IN_A_FOLDER = 1000
"""Comparisons per folder of written images: file browsers are slow with more."""

FolderPath = Annotated[str, Field(description="A folder.")]

_SIGNATURES = {
    b"\x89PNG\r\n\x1a\n": ".png",
    b"\xff\xd8\xff": ".jpg",
    b"GIF8": ".gif",
    b"BM": ".bmp",
    b"II*\x00": ".tif",
    b"MM\x00*": ".tif",
}


def image_at(root: Path, name: object) -> bytes:
    """Read an image that a line of a source names.

    Args:
        root: The source's folder.
        name: Path inside it.

    Returns:
        The encoded bytes.

    Raises:
        TastemakerError: It is not a path, leads out of the folder, or cannot be read.
    """
    if not name or not isinstance(name, str):
        raise TastemakerError(f"an image's path is {name!r}; it must name a file in {root}")
    if leads_out(name):
        raise TastemakerError(
            f"path {name!r} leads out of the folder; move the image into {root} and name it from"
            " there"
        )
    return read_bytes(root / name)


def named_images(root: Path, names: Iterable[object]) -> Iterator[Path]:
    """Yield the files that a line names as images and that `image_at` can read."""
    for name in names:
        if name and isinstance(name, str) and not leads_out(name):
            file = root / name
            if file.is_file():
                yield file


def by_stem(folder: Path) -> Listing:
    """List the images of a folder, names without ending to whole names, without hidden ones.

    Raises:
        TastemakerError: The folder does not exist, or two images share a stem.
    """
    if not folder.is_dir():
        raise TastemakerError(f"{folder} does not exist; it must have images.")
    found = Listing()
    with os.scandir(folder) as entries:
        for name in (entry.name for entry in entries):
            stem, suffix = os.path.splitext(name)
            if suffix.lower() not in SUFFIXES or name.startswith("."):
                continue
            if not found.add(stem, name):
                both = " and ".join(sorted((found[stem], name)))
                raise TastemakerError(f"{folder} holds {both}: which of them is meant?")
    return found


def suffix_of(image: bytes) -> str:
    r"""Return the ending for a file of encoded bytes: `.png`, `.jpg`, ...; `.img` if unknown.

    Example:
        >>> suffix_of(b"\xff\xd8\xff\xe0")
        '.jpg'
    """
    if image[:4] == b"RIFF" and image[8:12] == b"WEBP":
        return ".webp"
    return next((end for start, end in _SIGNATURES.items() if image.startswith(start)), ".img")


@dataclass
class ImageFolder:
    """Writer of numbered image files, a thousand comparisons per folder.

    Args:
        root: Output folder; the images go to `images/` in it.
    """

    root: Path

    def put(self, number: int, place: int, image: bytes) -> str:
        """Write an image.

        Args:
            number: Index of its comparison.
            place: Index of the image in the comparison.
            image: Encoded bytes.

        Returns:
            Its path from the root.
        """
        name = f"images/{number // IN_A_FOLDER:05d}/{number:08d}-{place}{suffix_of(image)}"
        file = self.root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(image)
        return name
