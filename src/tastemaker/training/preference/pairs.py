"""Pairs as examples to encode: of a folder, or rows of images in memory."""

from __future__ import annotations

import functools
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from tastemaker.core.content_hash import file_content
from tastemaker.core.errors import TastemakerError
from tastemaker.storage.pairs import PairSet
from tastemaker.storage.parquet import read_table
from tastemaker.training.encoding_plan import Examples

if TYPE_CHECKING:
    import pyarrow as pa

SIDES = ("chosen", "rejected")


class PoolImages:
    """Images that are read from shards of pools.

    Args:
        shards: Of all pools.
        named: Where the images are named, for messages.
    """

    def __init__(self, shards: Sequence[Path], named: str) -> None:
        self.shards, self.named = shards, named
        self._table = functools.lru_cache(maxsize=1)(read_table)

    def sources(self) -> int:
        """Return the number of shards of the pools."""
        return len(self.shards)

    def ids(self, source: int) -> Sequence[str]:
        """Return the candidates of a shard."""
        names: list[str] = self._table(self.shards[source])["candidate_id"].to_pylist()
        return names

    def image(self, source: int, place: int) -> dict[str, Any]:
        """Read a candidate."""
        table: pa.Table = self._table(self.shards[source])
        (row,) = table.slice(place, 1).to_pylist()
        return dict(row)

    def absent(self, number: int, first: str) -> TastemakerError:
        """Return the error for images that no pool has."""
        return TastemakerError(
            f"{number} images of {self.named} are in none of its pools (first: {first}); pair"
            " again, or restore the pool."
        )


class StoredPairs(PoolImages):
    """Pairs of a folder, whose images are read from their pools.

    Args:
        pairs: The folder.
    """

    def __init__(self, pairs: PairSet) -> None:
        shards = [shard for pool in pairs.pools() for shard in pool.shards()]
        super().__init__(shards, str(pairs.file))
        self.pairs = pairs

    def identity(self) -> Any:
        """Return the contents of the pairs' file and of their pools' shards."""
        return [file_content(file) for file in (self.pairs.file, *self.shards)]

    def rows(self) -> Iterator[tuple[tuple[str, ...], str, float]]:
        """Yield ids of the images, prompt and margin of each pair."""
        for row in self.pairs.rows():
            yield (row["chosen_id"], row["rejected_id"]), row["prompt"], row["margin"]


class ImagePairs:
    """Rows of `prompt`, `chosen` and `rejected`, for instance a `datasets.Dataset`.

    Args:
        rows: A sequence of mappings. An image is one of PIL, a path, encoded bytes, or a mapping of
            `bytes` or `path`; its sides are taken as they are. `score_gap` is optional, 1 by
            default: how much better the chosen image is.

    Raises:
        TastemakerError: There are no rows, or one has no prompt.
    """

    def __init__(self, images: Sequence[Mapping[str, Any]]) -> None:
        self.images = images
        if not len(images):
            raise TastemakerError("there are no pairs; give rows of prompt, chosen and rejected.")
        self._row = functools.lru_cache(maxsize=1)(images.__getitem__)

    def identity(self) -> Any:
        """Return None: what is in memory has no identity but its content."""

    def rows(self) -> Iterator[tuple[tuple[str, ...], str, float]]:
        """Yield ids of the images, prompt and score gap of each pair."""
        # A column of a Dataset is read without decoding its images.
        known = getattr(self.images, "column_names", None)
        texts = (
            self.images.select_columns(  # type: ignore[attr-defined]
                [name for name in known if name not in SIDES]
            )
            if known
            else self.images
        )
        for i in range(len(texts)):
            prompt = str(self._value(i, texts[i], "prompt"))
            yield tuple(self.ids(i)), prompt, float(texts[i].get("score_gap", 1.0))

    def sources(self) -> int:
        """Return the number of pairs."""
        return len(self.images)

    def ids(self, source: int) -> Sequence[str]:
        """Name both images of a pair."""
        return [f"{source:09d}-{side}" for side in SIDES]

    def image(self, source: int, place: int) -> dict[str, Any]:
        """Read an image of a pair."""
        side = SIDES[place]
        data = encoded(self._value(source, self._row(source), side), f"pair {source}: {side}")
        return {"candidate_id": self.ids(source)[place], "image": {"bytes": data}}

    def absent(self, number: int, first: str) -> TastemakerError:
        """Return the error for images that are not there, of which there are none."""
        return TastemakerError(f"{number} images are missing (first: {first}).")

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


def open_pairs(pairs: str | Path | PairSet | Sequence[Mapping[str, Any]]) -> Examples:
    """Read pairs from a folder, or take rows of images as they are.

    Args:
        pairs: A folder that `pair` or an import wrote, or rows for `ImagePairs`.
    """
    if isinstance(pairs, str | Path):
        pairs = PairSet(Path(pairs))
    return StoredPairs(pairs) if isinstance(pairs, PairSet) else ImagePairs(pairs)
