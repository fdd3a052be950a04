"""Encoded examples, and the shards of their tensors: safetensors files, or memory, read by rows.

A row is read from its place in the file and not through a memory map, whose pages would count as
the process's memory: reading takes as much of it from a million rows as from a thousand.
"""

from __future__ import annotations

import contextlib
import functools
import json
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tastemaker.storage.files import DamagedError, damaged
from tastemaker.storage.tensors import read_tensors, write_tensors
from tastemaker.storage.unfinished import UNFINISHED, saved_when_stopped

Tensors = dict[str, torch.Tensor]
"""Tensors by name, first dimension = rows."""

CHECKSUMS = "checksums"
"""In a shard: CRC-32 of each row."""

CONDITIONING = "conditioning."
"""Prefix of what else a shard of images keeps: SDXL's sizes."""

TOKENS = "tokens."
"""Prefix of a prompt's tokens, which text encoders take where they train."""

DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64}


class Shards:
    """Shards of one kind of encodings; each row has a number.

    Args:
        folder: Where their files are; None keeps the shards in memory.
        kind: "images" or "prompts".
        size: Rows per shard, at most: row r is in shard r // size.
    """

    def __init__(self, folder: Path | None, kind: str, size: int) -> None:
        self.folder, self.kind, self.size = folder, kind, size
        self.memory: dict[int, Tensors] = {}
        self._layout = functools.lru_cache(maxsize=1024)(self._read_layout)

    def path(self, shard: int) -> Path:
        """Return the file of a shard."""
        assert self.folder is not None
        return self.folder / f"{self.kind}-{shard:05d}.safetensors"

    def whole(self, shard: int) -> bool:
        """Return whether a shard is there with all its bytes; a torn one is removed."""
        if self.folder is None:
            return shard in self.memory
        path = self.path(shard)
        if not path.is_file():
            return False
        try:
            self._read_layout(shard)
        except DamagedError:
            print(f"{path} is damaged; it is made again.")
            path.unlink()
            return False
        return True

    def fill(
        self,
        shard: int,
        batches: Callable[[int], Iterator[Tensors]],
        made: Callable[[int], object],
    ) -> None:
        """Make a shard; a stopped command keeps the batches that it has made.

        Args:
            shard: Its number.
            batches: Makes the shard's rows in order, from a row of the shard on.
            made: Called with the number of rows after each batch.

        Raises:
            TastemakerError: The disk is full.
        """
        part = None if self.folder is None else self._unfinished(shard)
        rows = [] if part is None else _left(part)
        saved = contextlib.nullcontext() if part is None else saved_when_stopped(part, rows, _save)
        with saved:
            done = sum(map(_length, rows))
            made(done)
            for batch in batches(done):
                rows.append(batch)
                made(_length(batch))
            self._keep(shard, joined(rows))
        if part is not None:
            part.unlink(missing_ok=True)

    def _keep(self, shard: int, rows: Tensors) -> None:
        if self.folder is None:
            self.memory[shard] = rows
            return
        sums = [_checksum({name: rows[name][i] for name in rows}) for i in range(_length(rows))]
        write_tensors(self.path(shard), {**rows, CHECKSUMS: torch.tensor(sums)})

    def _unfinished(self, shard: int) -> Path:
        path = self.path(shard)
        return path.with_name(f"{UNFINISHED}-{path.name}")

    def read(self, rows: Sequence[int], prefix: str = "") -> Tensors:
        """Read rows of equal shapes.

        Args:
            rows: Their numbers.
            prefix: Of the names to read.

        Returns:
            Per name that all of them have a tensor, first dimension = rows.

        Raises:
            DamagedError: A row is not what was written.
        """
        found = [self._row(*divmod(row, self.size), prefix) for row in rows]
        names = [name for name in found[0] if all(name in row for row in found)]
        return {name: torch.stack([row[name] for row in found]) for name in names}

    def _row(self, shard: int, place: int, prefix: str) -> Tensors:
        if self.folder is None:
            whole = self.memory[shard].items()
            return {name: value[place] for name, value in whole if name.startswith(prefix)}
        layout, row, total, expected = self._layout(shard), {}, 0, 0
        if not any(name.startswith(prefix) for name in layout):
            return {}
        with self.path(shard).open("rb", buffering=0) as file:
            for name, (dtype, shape, start, size) in layout.items():
                file.seek(start + place * size)
                data = bytearray(size)
                file.readinto(data)
                if name == CHECKSUMS:
                    expected = int.from_bytes(data, "little")
                    continue
                total = zlib.crc32(data, total)
                if name.startswith(prefix):
                    row[name] = torch.frombuffer(data, dtype=dtype).reshape(shape)
        if total != expected:
            raise damaged(self.path(shard), f"row {place} is not what was written")
        return row

    def _read_layout(self, shard: int) -> dict[str, tuple[torch.dtype, list[int], int, int]]:
        """Type, shape, first byte and size in bytes of a row, by tensor in order of names."""
        path = self.path(shard)
        try:
            with path.open("rb") as file:
                length = int.from_bytes(file.read(8), "little")
                header = json.loads(file.read(min(length, path.stat().st_size)))
            header.pop("__metadata__")
            layout = {}
            for name, about in sorted(header.items()):
                begin, end = about["data_offsets"]
                rows, *shape = about["shape"]
                layout[name] = (
                    DTYPES[about["dtype"]],
                    shape,
                    8 + length + begin,
                    (end - begin) // rows,
                )
            ends = [about["data_offsets"][1] for about in header.values()]
        except (ValueError, LookupError, TypeError):
            raise damaged(path, "its header cannot be read") from None
        if path.stat().st_size != 8 + length + max(ends):
            raise damaged(path, "it is truncated")
        return layout


class Latents:
    """Posteriors of images in buckets of one size, in the units that the denoiser sees.

    Args:
        shards: Rows of `mean`, of `std` where a posterior is sampled, and of conditioning.
        of_shards: Shape of the latents in each shard: channels, height and width.
        shapes: Shape of each bucket.
    """

    def __init__(
        self,
        shards: Shards,
        of_shards: Sequence[tuple[int, int, int]],
        shapes: Sequence[tuple[int, int, int]],
    ) -> None:
        self.shards, self.shapes = shards, list(shapes)
        numbers = [self.shapes.index(each) if each in self.shapes else -1 for each in of_shards]
        self._buckets = np.array(numbers)

    def bucket(self, images: torch.Tensor) -> torch.Tensor:
        """Return the numbers of images' buckets."""
        return torch.from_numpy(self._buckets[images.numpy() // self.shards.size])

    def take(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Read images of one bucket.

        Args:
            images: Their rows.

        Returns:
            Mean and standard deviation, float32, [images, channels, h, w]; None where no image has
            a deviation, since the model sampled all of them itself or the posterior is not sampled.
        """
        rows = [self.shards.read([row]) for row in images.tolist()]
        mean = torch.cat([row["mean"].float() for row in rows])
        if not any("std" in row for row in rows):
            return mean, None
        none = torch.zeros_like(mean[:1])
        return mean, torch.cat([row["std"].float() if "std" in row else none for row in rows])

    def conditioning(self, images: torch.Tensor) -> Tensors:
        """Read images' conditioning beside their prompts; empty in most families."""
        rows = self.shards.read(images.tolist(), CONDITIONING)
        return {name.removeprefix(CONDITIONING): value for name, value in rows.items()}


@dataclass(frozen=True, eq=False)
class Encoded:
    """Encoded examples of one or more images and a prompt, on the CPU.

    Attributes:
        latents: One row per image.
        embeddings: Embeddings and tokens, one row per prompt; the empty one is row 0.
        examples: Of each the rows of its `images` and `prompt`, and its `gap`.
        fingerprint: Hash of the contents of all examples.
        text_trains: Whether prompts are read as tokens too, for text encoders that train.
    """

    latents: Latents
    embeddings: Shards
    examples: np.ndarray[Any, Any]
    fingerprint: str
    text_trains: bool = False

    def __len__(self) -> int:
        """Return the number of examples."""
        return len(self.examples)

    def images(self, numbers: torch.Tensor) -> torch.Tensor:
        """Return the rows of examples' images: all first ones, then all second ones."""
        rows = self.examples["images"][numbers.numpy()]
        return torch.from_numpy(rows.T.astype(np.int64).reshape(-1))

    def prompts(self, numbers: torch.Tensor) -> torch.Tensor:
        """Return the rows of examples' prompts, shape [numbers]."""
        return torch.from_numpy(self.examples["prompt"][numbers.numpy()].astype(np.int64))

    def gaps(self, numbers: torch.Tensor) -> torch.Tensor:
        """Return examples' score gaps, shape [numbers]."""
        return torch.from_numpy(self.examples["gap"][numbers.numpy()])

    def text(self, prompts: torch.Tensor) -> tuple[Tensors, Tensors | None]:
        """Read prompts.

        Args:
            prompts: Their rows; repetition allowed.

        Returns:
            Embeddings, float32, and tokens where text encoders train; one row per prompt.
        """
        unique, places = prompts.unique(return_inverse=True)
        rows = self.embeddings.read(unique.tolist())
        found = {name: value[places] for name, value in rows.items()}
        ids = {name.removeprefix(TOKENS): found.pop(name) for name in [*found] if TOKENS in name}
        floats = {name: value.float() for name, value in found.items()}
        return floats, ids if self.text_trains else None


def joined(batches: Sequence[Tensors]) -> Tensors:
    """Join batches along their first dimension."""
    return {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}


def _length(tensors: Tensors) -> int:
    return len(next(iter(tensors.values())))


def _save(part: Path, rows: list[Tensors]) -> None:
    write_tensors(part, joined(rows))


def _left(part: Path) -> list[Tensors]:
    """The rows of a shard that a stopped command left."""
    if not part.is_file():
        return []
    try:
        return [read_tensors(part)[0]]
    except DamagedError:
        print(f"{part} is damaged; it is made again.")
        return []


def _checksum(row: Tensors) -> int:
    """CRC-32 of a row's bytes in the order of the names."""
    total = 0
    for _, value in sorted(row.items()):
        total = zlib.crc32(value.contiguous().reshape(-1).view(torch.uint8).numpy().data, total)
    return total
