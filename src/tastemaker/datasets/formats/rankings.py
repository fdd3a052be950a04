"""HPDv2's rankings: a JSON list of prompts, each with several images and their ranks."""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from tastemaker.core.errors import TastemakerError
from tastemaker.core.reading import require_file
from tastemaker.core.registry import COMPARISONS, LAYOUTS
from tastemaker.datasets.comparisons import (
    BOTH_BAD,
    Comparison,
    WrongLabel,
    prompt_of,
    read_comparisons,
    win_shares,
)
from tastemaker.datasets.formats.image_files import ImageFolder, image_at, named_images
from tastemaker.datasets.formats.json_items import json_items
from tastemaker.datasets.items import Source
from tastemaker.datasets.listing import unnamed
from tastemaker.storage.files import atomic

FILE = "rankings.json"
IMAGES = ("image_path", "file_path", "generations", "images")
RANKS = ("rank", "ranking")
PREFERENCE = "human_preference"


@COMPARISONS.register("rankings")
def rankings(
    *,
    path: Annotated[str, Field(description="A .json or .jsonl file; or a folder: rankings.json.")],
    images: Annotated[
        str | None, Field(description="Folder that the images' paths begin in; null: the file's.")
    ] = None,
) -> Source[Comparison]:
    """HPDv2's JSON: `{"prompt": "a cat", "image_path": ["0.jpg", "1.jpg"], "rank": [2, 1]}`.

    Low ranks are better, and equal ones tie. `human_preference`, 1 for the preferred image, may
    replace `rank`; `file_path` or `generations` may replace `image_path`. Verdicts are the share of
    the other images that each beats. Annotators' own rankings (`raw_annotations`) are not read.

    Args:
        path: The file; a list of objects, or one object per line.
        images: Folder of the images: HPDv2's `test/` for its `test.json`.

    Returns:
        Its comparisons, of two or more images each.

    Raises:
        TastemakerError: No such file.

    References:
        Wu et al., Human Preference Score v2, arXiv 2306.09341.
    """
    file = Path(path) / FILE if Path(path).is_dir() else Path(path)
    require_file(file)
    root = Path(images) if images else file.parent
    files = chain([file], named_images(root, _names(file)))
    beside = unnamed(file, _names(file)) if root == Path(path) else ()
    read = functools.partial(_comparison, root)
    return Source(files, read_comparisons(file.name, "row", json_items(file), read), beside)


@LAYOUTS.register("rankings")
def write_rankings(comparisons: Iterator[Comparison], folder: Path) -> None:
    """A folder of images with rankings.json, as HPDv2's test set; any number of images per prompt.

    Args:
        comparisons: Of two images or more each.
        folder: Output folder.
    """
    images = ImageFolder(folder)
    with atomic(folder / FILE) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.write("[")
        for number, comparison in enumerate(comparisons):
            file.write(",\n" if number else "\n")
            json.dump(_item(number, comparison, images), file, ensure_ascii=False)
        file.write("\n]\n")


write_rankings.any_number = True  # type: ignore[attr-defined]


def _item(number: int, comparison: Comparison, images: ImageFolder) -> dict[str, Any]:
    verdicts = comparison.verdicts
    item: dict[str, Any] = {
        "prompt": comparison.prompt,
        "image_path": [images.put(number, i, each) for i, each in enumerate(comparison.images)],
        "rank": [1 + sum(other > verdict for other in verdicts) for verdict in verdicts],
    }
    if not comparison.judged:
        item["rank"] = None
    if comparison.bad:
        item[BOTH_BAD] = True
    if any(comparison.models):
        item["models"] = list(comparison.models)
    return item


def _names(file: Path) -> Iterator[object]:
    """Yield the file names in the items; a torn file is reported when comparisons are read."""
    with contextlib.suppress(TastemakerError):
        for _, item in json_items(file):
            found = (item.get(key) for key in IMAGES) if isinstance(item, dict) else ()
            yield from next((names for names in found if isinstance(names, list)), ())


def _comparison(root: Path, where: str, item: Any) -> Comparison:
    if not isinstance(item, dict):
        raise TastemakerError(f"it is {type(item).__name__}, not an object")
    names = _list(item, IMAGES)
    if len(names) < 2:
        raise TastemakerError(f"it has {len(names)} images; two are needed to compare")
    ranks, judged = _ranks(item, len(names))
    models = item.get("models") or [""] * len(names)
    if not isinstance(models, list) or len(models) != len(names):
        raise TastemakerError(f"models is {models!r}; it must name one per image")
    return Comparison(
        where,
        prompt_of(item),
        tuple(image_at(root, name) for name in names),
        win_shares([-rank for rank in ranks]),
        tuple(str(model or "") for model in models),
        judged=judged,
        bad=bool(item.get(BOTH_BAD)),
    )


def _ranks(item: Mapping[str, Any], number: int) -> tuple[list[float], bool]:
    """Return the images' ranks, the lowest the best, and False where there are none."""
    if any(key in item and item[key] is None for key in RANKS):
        return [0.0] * number, False
    key = next((key for key in (*RANKS, PREFERENCE) if key in item), RANKS[0])
    values = _list(item, (key,))
    if len(values) != number:
        raise TastemakerError(f"{key} has {len(values)} values for {number} images")
    if not all(isinstance(value, (int, float)) and value == value for value in values):
        raise WrongLabel(f"{key} is {values!r}; it must hold numbers")
    if key == PREFERENCE:
        if not all(value in (0, 0.5, 1) for value in values):
            raise WrongLabel(f"{key} is {values!r}; it must hold 0, 0.5 or 1")
        return [-float(value) for value in values], True
    return [float(value) for value in values], True


def _list(item: Mapping[str, Any], keys: Sequence[str]) -> list[Any]:
    found = next((item[key] for key in keys if key in item), None)
    if found is None:
        raise TastemakerError(f"it has no {' or '.join(keys)}; it has {sorted(item)}")
    if not isinstance(found, list):
        raise TastemakerError(f"{keys[0]} is {found!r}, not a list")
    return found
