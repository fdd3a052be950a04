"""Pairs in memory, as training reads them."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from PIL import Image

from tastemaker.core.errors import TastemakerError
from tastemaker.storage.pairs import PairSet

SIDES = ("chosen", "rejected")


class Pairs(Protocol):
    """Pairs and their images."""

    def columns(self) -> dict[str, list[Any]]:
        """Return chosen_id, rejected_id, prompt and margin of every pair."""
        ...

    def images(self, ids: set[str]) -> Iterator[dict[str, Any]]:
        """Read the images with these ids, each as a row of a pool."""
        ...


class ImagePairs:
    """Rows of `prompt`, `chosen` and `rejected`, for instance a `datasets.Dataset`.

    Args:
        rows: A sequence of mappings. An image is one of PIL, a path, encoded bytes, or a mapping of
            `bytes` or `path`; its sides are taken as they are. `score_gap` is optional, 1 by
            default: how much better the chosen image is.

    Raises:
        TastemakerError: There are no rows, or one has no prompt.
    """

    def __init__(self, rows: Sequence[Mapping[str, Any]]) -> None:
        self.rows = rows
        if not len(rows):
            raise TastemakerError("there are no pairs; give rows of prompt, chosen and rejected.")

    def columns(self) -> dict[str, list[Any]]:
        """Return chosen_id, rejected_id, prompt and margin of every pair."""
        numbers = range(len(self.rows))
        # A column of a Dataset is read without decoding its images.
        known = getattr(self.rows, "column_names", None)
        whole = (
            self.rows.select_columns(  # type: ignore[attr-defined]
                [name for name in known if name not in SIDES]
            )
            if known
            else self.rows
        )
        texts = [whole[i] for i in numbers]
        return {
            **{f"{side}_id": [f"{i:09d}-{side}" for i in numbers] for side in SIDES},
            "prompt": [str(self._value(i, row, "prompt")) for i, row in enumerate(texts)],
            "margin": [float(row.get("score_gap", 1.0)) for row in texts],
        }

    def images(self, ids: set[str]) -> Iterator[dict[str, Any]]:
        """Read the images with these ids, each as a row of a pool."""
        for i in range(len(self.rows)):
            sides = [side for side in SIDES if f"{i:09d}-{side}" in ids]
            row = self.rows[i] if sides else {}
            for side in sides:
                data = encoded(self._value(i, row, side), f"pair {i}: {side}")
                yield {"candidate_id": f"{i:09d}-{side}", "image": {"bytes": data}}

    def _value(self, number: int, row: Mapping[str, Any], key: str) -> Any:
        if row.get(key) is None:
            raise TastemakerError(
                f"pair {number} has no {key!r}; every pair needs prompt, chosen and rejected."
            )
        return row[key]


def encoded(image: Any, name: str) -> bytes:
    """Return an image as the bytes of a file, without loss.

    Args:
        image: PIL, a path, bytes, or a mapping of `bytes` or `path`.
        name: For the message.

    Raises:
        TastemakerError: It is something else, or the path is not that of a file.
    """
    if isinstance(image, Mapping):
        image = image.get("bytes") or image.get("path")
    if isinstance(image, str | Path):
        if not Path(image).is_file():
            raise TastemakerError(f"{name}: {str(image)!r} is not a file; check the path.")
        return Path(image).read_bytes()
    if isinstance(image, Image.Image):
        file = io.BytesIO()
        image.save(file, format="PNG")
        return file.getvalue()
    if isinstance(image, bytes):
        return image
    raise TastemakerError(f"{name} is of type {type(image).__name__}; give a PIL image or a path.")


def open_pairs(pairs: str | Path | PairSet | Sequence[Mapping[str, Any]]) -> Pairs:
    """Read pairs from a folder, or take rows of images as they are.

    Args:
        pairs: A folder that `pair` or an import wrote, or rows for `ImagePairs`.
    """
    if isinstance(pairs, str | Path):
        return PairSet(Path(pairs))
    return pairs if isinstance(pairs, PairSet) else ImagePairs(pairs)
