"""A folder of images with metadata.jsonl: one line per comparison."""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from tastemaker.core.errors import TastemakerError
from tastemaker.core.reading import json_lines, require_file
from tastemaker.core.registry import COMPARISONS, LAYOUTS
from tastemaker.datasets.comparisons import (
    BOTH_BAD,
    Comparison,
    of_two,
    prompt_of,
    read_comparisons,
    read_label,
)
from tastemaker.datasets.formats.image_files import FolderPath, ImageFolder, image_at, named_images
from tastemaker.datasets.items import LeftOut, Refused, Source
from tastemaker.datasets.listing import unnamed
from tastemaker.storage.files import atomic

METADATA = "metadata.jsonl"


@COMPARISONS.register("folder")
def folder(*, path: FolderPath) -> Source[Comparison]:
    """A folder with metadata.jsonl: `{"prompt": "a cat", "chosen": "a.png", "rejected": "b.png"}`.

    A line may also have `"label"`: 1 as without it, 0.5 for a tie, 0 where the images are the other
    way round, "both_bad", or null for no verdict; and `"chosen_model"` and `"rejected_model"`.

    Args:
        path: The folder; the lines name images from there.

    Returns:
        Its comparisons in order of lines.

    Raises:
        TastemakerError: There is no `metadata.jsonl`.
    """
    file = Path(path) / METADATA
    require_file(file)
    files = chain([file], named_images(file.parent, _names(file)))
    return Source(files, _comparisons(file), unnamed(file, _names(file)))


@LAYOUTS.register("folder")
def write_folder(comparisons: Iterator[Comparison], folder: Path) -> None:
    """A folder of images with metadata.jsonl: prompt, chosen, rejected.

    Args:
        comparisons: Of two images each.
        folder: Output folder.
    """
    images = ImageFolder(folder)
    with (
        atomic(folder / METADATA) as temporary,
        temporary.open("w", encoding="utf-8") as lines,
    ):
        for number, comparison in enumerate(comparisons):
            lines.write(json.dumps(_line(number, comparison, images), ensure_ascii=False) + "\n")


def _line(number: int, comparison: Comparison, images: ImageFolder) -> dict[str, Any]:
    # Written as chosen and rejected, so that a reader who knows no labels errs on ties alone.
    turned = comparison.verdicts[0] < comparison.verdicts[1]
    order = (1, 0) if turned else (0, 1)
    names = [images.put(number, place, comparison.images[place]) for place in order]
    row: dict[str, Any] = {"prompt": comparison.prompt, "chosen": names[0], "rejected": names[1]}
    if not comparison.judged:
        row["label"] = None
    elif comparison.bad:
        row["label"] = BOTH_BAD
    elif comparison.tied:
        row["label"] = 0.5
    if any(comparison.models):
        row["chosen_model"], row["rejected_model"] = (comparison.models[each] for each in order)
    return row


def _comparisons(file: Path) -> Iterator[Comparison | LeftOut]:
    empty = True
    read = functools.partial(_comparison, file.parent)
    for comparison in read_comparisons(METADATA, "line", json_lines(file), read):
        empty = False
        yield comparison
    if empty:
        yield Refused(METADATA, "is empty; add one line per pair")


def _names(file: Path) -> Iterator[object]:
    """Yield the file names in the lines; torn lines are reported when comparisons are read."""
    with contextlib.suppress(TastemakerError):
        for _, row in json_lines(file):
            if isinstance(row, dict):
                yield from (row.get("chosen"), row.get("rejected"))


def _comparison(root: Path, where: str, row: Any) -> Comparison:
    if isinstance(row, TastemakerError):
        raise row
    if not isinstance(row, dict):
        raise TastemakerError(f"the line is {type(row).__name__}, not an object")
    missing = [key for key in ("chosen", "rejected") if key not in row]
    if missing:
        raise TastemakerError(f"it has no {missing[0]!r}; it has {sorted(row)}")
    return of_two(
        where,
        prompt_of(row),
        (image_at(root, row["chosen"]), image_at(root, row["rejected"])),
        read_label(row.get("label", 1), "label"),
        (str(row.get("chosen_model") or ""), str(row.get("rejected_model") or "")),
    )
