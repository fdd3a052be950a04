"""Prompts and pictures in common of two pools, for leaks between splits."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tastemaker.storage.images import decode, pixel_hash
from tastemaker.storage.pairs import PairSet
from tastemaker.storage.parquet import read_table
from tastemaker.storage.pictures import Pictures
from tastemaker.storage.pool import Pool
from tastemaker.storage.trained_prompts import shared_prompts


def shared(folder: Path, other: Path) -> dict[str, str]:
    """Count prompts and pictures that are in two pools, or in the images of two sets of pairs.

    Args:
        folder: Folder of a pool or of pairs.
        other: Another one.

    Returns:
        Two facts, each with the first that is in both.

    Raises:
        TastemakerError: A folder holds neither, or an image is corrupt.
    """
    theirs = (prompt for _, prompt, _ in _images(other))
    common = dict.fromkeys(shared_prompts((prompt for _, prompt, _ in _images(folder)), theirs))
    twice = shared_pictures(folder, other)
    first = next((f"; the first is {each!r}" for each in common), "")
    pair = next((f"; the first is {name}, there {seen}" for name, seen in twice.items()), "")
    return {
        f"Prompts also in {other.name}": f"{len(common)}{first}",
        f"Pictures also in {other.name}": f"{len(twice)}{pair}",
    }


def shared_pictures(folder: Path, other: Path) -> dict[str, str]:
    """Find the images of a pool, or of pairs, whose pixels are in another.

    Args:
        folder: Folder of a pool or of pairs.
        other: Another one.

    Returns:
        Ids of `folder`'s, each with the first of `other`'s that has its pixels.

    Raises:
        TastemakerError: A folder holds neither, or an image is corrupt.
    """
    pictures = Pictures()
    for name, _, image in _images(other):
        pictures.add(_pixels(name, image), name)
    twice = {}
    for name, _, image in _images(folder):
        if (seen := pictures.where(_pixels(name, image))) is not None:
            twice[name] = seen
    pictures.close()
    return twice


def _pixels(name: str, image: bytes) -> str:
    return pixel_hash(decode(image, name))


def _images(folder: Path) -> Iterator[tuple[str, str, bytes]]:
    """Yield id, prompt and encoded bytes of each image."""
    only: set[str] | None = None
    pools = [Pool(folder)]
    if PairSet(folder).file.is_file():
        table = PairSet(folder).table()
        only = {*table["chosen_id"].to_pylist(), *table["rejected_id"].to_pylist()}
        pools = PairSet(folder).pools()
    for pool in pools:
        for shard in pool.shards():
            for row in read_table(shard, ("candidate_id", "prompt", "image")).to_pylist():
                name = row["candidate_id"]
                if only is None or name in only:
                    yield name, row["prompt"], row["image"]["bytes"]
