"""Twin folders: chosen and rejected images with equal names."""

from __future__ import annotations

import functools
import heapq
import itertools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from tastemaker.core.errors import TastemakerError
from tastemaker.core.reading import decode_text, read_bytes
from tastemaker.core.registry import COMPARISONS, LAYOUTS
from tastemaker.datasets.comparisons import (
    BOTH_BAD,
    Comparison,
    Label,
    of_two,
    or_left_out,
    read_label,
)
from tastemaker.datasets.formats.image_files import FolderPath, by_stem, suffix_of
from tastemaker.datasets.items import LeftOut, Source
from tastemaker.datasets.listing import NO_IMAGE, OTHER, SUFFIXES, Listing, passed_over
from tastemaker.storage.files import printable

SIDES = ("chosen", "rejected")
NO_LABEL = "none"
"""Content of a label's file without a verdict."""


@COMPARISONS.register("twins")
def twins(*, path: FolderPath) -> Source[Comparison]:
    """Folders `chosen/` and `rejected/` with images of equal stems, and `captions/STEM.txt`.

    The captions may also lie beside the images, as `chosen/STEM.txt`. A file
    `labels/STEM.txt` gives the label of a pair: 1, 0.5 for a tie, 0 for the other way round,
    `both_bad`, or `none` for no verdict.

    Args:
        path: The folder with both.

    Returns:
        Its comparisons in order of stems.

    Raises:
        TastemakerError: A folder is missing or has no image, or two images have one stem.
    """
    root = Path(path)
    sides = [by_stem(root / side) for side in SIDES]
    if not any(sides):
        raise TastemakerError(f"{root / 'chosen'} and {root / 'rejected'} hold no image.")
    files = (
        file
        for stem in _stems(sides)
        for file in (
            *(
                root / side / held[stem]
                for side, held in zip(SIDES, sides, strict=True)
                if stem in held
            ),
            *_texts(root, stem),
        )
    )
    beside = passed_over(root, functools.partial(_no_twin, root))
    return Source(files, _comparisons(root, sides), beside)


@LAYOUTS.register("twins")
def write_twins(comparisons: Iterator[Comparison], folder: Path) -> None:
    """Folders `chosen/`, `rejected/` and `captions/` with equal stems, `labels/` for ties.

    Names of models are not kept: the format has no place for them.

    Args:
        comparisons: Of two images each.
        folder: Output folder.
    """
    for name in (*SIDES, "captions"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for number, comparison in enumerate(comparisons):
        stem = f"{number:08d}"
        turned = comparison.verdicts[0] < comparison.verdicts[1]
        images = comparison.images[::-1] if turned else comparison.images
        for side, image in zip(SIDES, images, strict=True):
            (folder / side / f"{stem}{suffix_of(image)}").write_bytes(image)
        (folder / "captions" / f"{stem}.txt").write_bytes(comparison.prompt.encode())
        if comparison.tied:
            (folder / "labels").mkdir(exist_ok=True)
            label = BOTH_BAD if comparison.bad else "0.5" if comparison.judged else NO_LABEL
            (folder / "labels" / f"{stem}.txt").write_text(label, encoding="utf-8")


def _texts(root: Path, stem: str) -> list[Path]:
    places = (root / name / f"{stem}.txt" for name in ("captions", *SIDES, "labels"))
    return [place for place in places if place.is_file()]


def _no_twin(root: Path, place: str) -> str | None:
    """Return why a file is neither an image of a pair nor a caption or label of one."""
    folder, _, name = place.rpartition("/")
    stem, suffix = os.path.splitext(name)
    if folder in SIDES and suffix.lower() in SUFFIXES:
        return None
    if suffix != ".txt" or folder not in {*SIDES, "captions", "labels"}:
        return OTHER
    images = (root / side / f"{stem}{end}" for side in SIDES for end in SUFFIXES)
    return None if any(map(os.path.lexists, images)) else NO_IMAGE


def _stems(sides: Sequence[Listing]) -> Iterator[str]:
    """Yield the stems of both sides, each once, in order."""
    merged = heapq.merge(*sides, key=os.fsencode)
    return (stem for stem, _ in itertools.groupby(merged))


def _comparisons(root: Path, sides: Sequence[Listing]) -> Iterator[Comparison | LeftOut]:
    for stem in _stems(sides):
        yield or_left_out(printable(stem), functools.partial(_comparison, root, stem, sides))


def _comparison(root: Path, stem: str, sides: Sequence[Listing]) -> Comparison:
    for side, held in zip(SIDES, sides, strict=True):
        if stem not in held:
            raise TastemakerError(f"no image of this name in {side}/")
    first, second = (
        read_bytes(root / side / held[stem]) for side, held in zip(SIDES, sides, strict=True)
    )
    caption, label = _caption(root, stem), _label(root, stem)
    return of_two(printable(stem), caption, (first, second), label)


def _caption(root: Path, stem: str) -> str:
    places = [root / name / f"{stem}.txt" for name in ("captions", *SIDES)]
    texts = [_text(place) for place in places if os.path.lexists(place)]
    if not texts:
        raise TastemakerError(f"no caption; write it in captions/{stem}.txt")
    if len({text.strip() for text in texts}) > 1:
        raise TastemakerError(
            f"the images are of two prompts ({', '.join(map(repr, texts))});"
            " only images of one prompt can be compared"
        )
    return texts[0]


def _label(root: Path, stem: str) -> Label:
    place = root / "labels" / f"{stem}.txt"
    text = _text(place).strip() if os.path.lexists(place) else "1"
    return None if text == NO_LABEL else read_label(text, f"labels/{stem}.txt")


def _text(file: Path) -> str:
    return decode_text(read_bytes(file), f"{file.parent.name}/{printable(file.name)}")
