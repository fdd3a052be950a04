"""Features of a pool's images, kept on disk for stopped and for later evaluations."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from tastemaker.core.hardware import is_main_process, processes
from tastemaker.metrics.networks import Network
from tastemaker.storage.artifact import Artifact, finished_key
from tastemaker.storage.files import read_json, write_json
from tastemaker.storage.images import decode
from tastemaker.storage.parquet import read_table
from tastemaker.storage.pool import Pool
from tastemaker.storage.tensors import read_tensors, write_tensors
from tastemaker.storage.unfinished import UNFINISHED, saved_when_stopped

Batches = Callable[[Iterable[Image.Image]], Iterator[Tensor]]
"""From images to their rows, [n, d], batch by batch."""

ROWS = "rows"
VALUES = "values.json"


@dataclass(frozen=True)
class Kept:
    """A folder of rows per image and lists of values, one artifact per pool and network.

    Args:
        folder: Holds a folder per artifact, named by its key.
    """

    folder: Path

    def rows(self, pool: Pool, network: Network, load: Callable[[], Batches]) -> Tensor:
        """Return a row of numbers per image; compute what is not kept, each process its shards.

        Args:
            pool: A finished pool.
            network: Identity of what computes the rows.
            load: Loads it; not called where all rows are kept.

        Returns:
            [images, d], float64, in the pool's order.
        """
        artifact = self._artifact("features", pool=finished_key(pool.folder), **network._asdict())
        shards = pool.shards()
        with artifact.claimed() as unfinished:
            if unfinished:
                state = processes()
                batches = functools.cache(load)
                with tqdm(desc=f"{network.label} of {pool.folder.name}", unit="images") as bar:
                    for shard in shards[state.process_index :: state.num_processes]:
                        _complete(_rows_file(artifact.folder, shard), shard, batches, bar)
                state.wait_for_everyone()
                artifact.finish()
        files = (_rows_file(artifact.folder, shard) for shard in shards)
        return torch.cat([read_tensors(file)[0][ROWS].double() for file in files])

    @contextlib.contextmanager
    def values(self, of: str, **inputs: Any) -> Iterator[list[float]]:
        """Keep the values that a block adds to a list, also those before a stop.

        Args:
            of: What they are.
            **inputs: What they depend on, JSON-like.

        Yields:
            The list, with what is kept already.
        """
        artifact = self._artifact(of, **inputs)
        file = artifact.folder / VALUES
        begun = file.with_name(f"{UNFINISHED}-{VALUES}")
        with artifact.claimed() as unfinished:
            there = begun if unfinished else file
            values: list[float] = read_json(there) if there.is_file() else []
            if not unfinished:
                yield values
                return
            with saved_when_stopped(begun, values, write_json):
                yield values
                if is_main_process():
                    write_json(file, values)
            artifact.finish()

    def _artifact(self, command: str, **config: Any) -> Artifact:
        artifact = Artifact(self.folder, command, config)
        return replace(artifact, folder=self.folder / artifact.key)


def pool_images(shard: Path, start: int = 0) -> Iterator[Image.Image]:
    """Read the pictures of a shard in order, from one on."""
    for row in read_table(shard, ("candidate_id", "image")).slice(start).to_pylist():
        yield decode(row["image"]["bytes"], row["candidate_id"])


def _rows_file(folder: Path, shard: Path) -> Path:
    return (folder / shard.name.replace("candidates", ROWS)).with_suffix(".safetensors")


def _complete(file: Path, shard: Path, batches: Callable[[], Batches], bar: Any) -> None:
    """Write the rows of a shard, beginning with those that a stop left."""
    if file.is_file():
        return
    begun = file.with_name(file.name.replace(ROWS, UNFINISHED))
    parts = [read_tensors(begun)[0][ROWS].double()] if begun.is_file() else []
    with saved_when_stopped(begun, parts, _write):
        for part in batches()(pool_images(shard, sum(map(len, parts)))):
            parts.append(part)
            bar.update(len(part))
        _write(file, parts)


def _write(file: Path, parts: list[Tensor]) -> None:
    """Write rows in float32 where that holds them exactly, as all that networks give in it."""
    rows = torch.cat(parts)
    short = rows.float()
    write_tensors(file, {ROWS: short if torch.equal(short.double(), rows) else rows})
