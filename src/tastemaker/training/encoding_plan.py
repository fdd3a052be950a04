"""Plan of the encodings of a training: which row each image and prompt has, each content one."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from tqdm import tqdm

from tastemaker.backbones import Backbone
from tastemaker.backbones.latents import kept_latents
from tastemaker.core.batching import streamed
from tastemaker.core.errors import TastemakerError
from tastemaker.storage.encoding_index import EncodingIndex, Layout
from tastemaker.storage.files import atomic, config_key, read_record, write_json
from tastemaker.storage.images import size_of

PLAN, INDEX, EXAMPLES = "plan.json", "index.sqlite", "examples.bin"

EMPTY = ""
"""The prompt of dropped prompts, in row 0."""


class Examples(Protocol):
    """Training examples, each of some images and a prompt."""

    def identity(self) -> Any:
        """Return what tells that nothing has changed, without reading the images; JSON-like."""
        ...

    def rows(self) -> Iterator[tuple[tuple[str, ...], str, float]]:
        """Yield each example: ids of its images, all of one number, its prompt, its score gap."""
        ...

    def sources(self) -> int:
        """Return how many files, or items, the images are read from."""
        ...

    def ids(self, source: int) -> Sequence[str]:
        """Return the ids of the images of a source."""
        ...

    def image(self, source: int, place: int) -> dict[str, Any]:
        """Read an image, as a row of a pool."""
        ...

    def absent(self, number: int, first: str) -> TastemakerError:
        """Return the error for images that no source has."""
        ...


def planned(examples: Examples, backbone: Backbone, folder: Path) -> dict[str, Any]:
    """Plan rows in a folder, unless that was done before.

    Args:
        examples: What is trained on.
        backbone: The model.
        folder: Of the encodings, locked.

    Returns:
        As `plan_rows`.

    Raises:
        TastemakerError: As there, or the disk is full.
    """
    identity = config_key(examples.identity(), backbone.name)
    if (folder / PLAN).is_file():
        plan = read_record(folder / PLAN, identity=str, shapes=list, fingerprint=str, images=int)
        if plan["identity"] == identity:
            return plan
        (folder / PLAN).unlink()
    before = folder / INDEX
    with atomic(before) as temporary, atomic(folder / EXAMPLES) as table:
        if before.is_file():
            shutil.copyfile(before, temporary)
        writing = EncodingIndex(temporary, writing=True)
        with contextlib.closing(writing) as index, table.open("wb") as file:
            plan = plan_rows(examples, backbone, index, file.write)
    write_json(folder / PLAN, {"identity": identity, **plan})
    return plan


def plan_rows(
    examples: Examples, backbone: Backbone, index: EncodingIndex, write: Callable[[bytes], Any]
) -> dict[str, Any]:
    """Give every image and prompt its row.

    Args:
        examples: What is trained on.
        backbone: The model.
        index: To fill.
        write: Takes the bytes of the examples, as `record` describes them.

    Returns:
        Their latents' `shapes`, a `fingerprint` of their contents, and the number of `images` of
        each. JSON-like.

    Raises:
        TastemakerError: An image is missing or corrupt, or sizes of an example differ.
    """
    index.add_prompt(EMPTY)
    for images, prompt, _ in examples.rows():
        index.add_example(images, prompt)
    for source in tqdm(range(examples.sources()), desc="index", unit="files", delay=5):
        for place, name in enumerate(examples.ids(source)):
            if index.needs(name):
                layout, content = _described(examples.image(source, place), backbone)
                index.add_image(name, content, layout, source, place)
    if (missing := index.missing())[0]:
        raise examples.absent(*missing)
    index.finish()
    return _write_examples(examples, index, write)


def _described(row: dict[str, Any], backbone: Backbone) -> tuple[Layout, bytes]:
    """Layout of an image's encoding, and the hash of all that the encoding depends on."""
    kept = kept_latents(backbone, row)
    data = row["image"]["bytes"]
    if kept is None:
        size = size_of(data, row["candidate_id"])
        layout = Layout(False, backbone.latent_shape(*size))
    else:
        channels, height, width = kept.shape
        layout, data = Layout(True, (channels, height, width)), row["latents"]
    sizes = [row.get(name) for name in ("original_size", "crops_coords_top_left", "crop_corner")]
    head = repr((*layout, sizes)).encode()
    return layout, hashlib.blake2b(head + data, digest_size=16).digest()


def _write_examples(
    examples: Examples, index: EncodingIndex, write: Callable[[bytes], Any]
) -> dict[str, Any]:
    """Write the rows of each example's images and prompt, and describe them all."""
    of_shards = [layout.shape for layout in index.layouts()]
    digest, shapes, uneven, first = hashlib.blake2b(digest_size=16), set(), 0, ""
    number = 0
    for part in streamed(examples.rows(), 4096):
        found = []
        for images, prompt, gap in part:
            rows, contents = zip(*map(index.image, images), strict=True)
            sizes = {of_shards[row // index.images_per_shard] for row in rows}
            if len(sizes) > 1:
                uneven, first = uneven + 1, first or prompt
            shapes |= sizes
            digest.update(b"".join(contents) + f"{gap!r} {prompt}\n".encode())
            found.append((rows, index.prompt(prompt), gap))
        number = len(found[0][0])
        write(np.array(found, dtype=record(number)).tobytes())
    if uneven:
        raise TastemakerError(
            f"{uneven} pairs have images of two sizes (first: {first!r}); import or draw both sides"
            " at one size."
        )
    return {"shapes": sorted(shapes), "fingerprint": digest.hexdigest(), "images": number}


def record(images: int) -> np.dtype[Any]:
    """Return the type of an example: rows of its images and prompt, and its score gap."""
    return np.dtype([("images", "<u4", (images,)), ("prompt", "<u4"), ("gap", "<f4")])
