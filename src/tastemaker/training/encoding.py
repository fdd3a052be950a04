"""Images and prompts of a training to latents and embeddings, each encoded once.

What is encoded with what is fixed by the plan alone: shards, and in them batches of consecutive
rows. So neither the number of processes nor a stop in between changes a byte.
"""

from __future__ import annotations

import contextlib
import functools
import io
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from tastemaker.backbones import Backbone, encoder_identity, stack
from tastemaker.backbones.staged import in_memory
from tastemaker.backbones.tokens import PROMPTS_AT_ONCE, TEXT
from tastemaker.core.batching import batched, overlapped
from tastemaker.core.errors import TastemakerError
from tastemaker.core.hardware import everywhere, from_main_process, number_of_processes, processes
from tastemaker.storage.artifact import ENCODED
from tastemaker.storage.candidates import latents_of
from tastemaker.storage.encoding_index import EncodingIndex
from tastemaker.storage.encodings import CONDITIONING, TOKENS, Encoded, Latents, Shards, Tensors
from tastemaker.storage.files import DiskError, config_key
from tastemaker.storage.images import decode, to_pixels
from tastemaker.storage.locks import exclusive
from tastemaker.training.encoding_plan import (
    EXAMPLES,
    INDEX,
    Examples,
    plan_rows,
    planned,
    record,
)

FORMAT = 1
"""Of the files; another one is another folder."""

PIXELS_AT_ONCE = 1024 * 1024
"""Pixels that a VAE encodes together: large images take no more memory than one of them."""

IMAGES_AT_ONCE = 32
"""Images that a VAE encodes together, at most."""

DECODERS = 2
"""Threads that decode images ahead of the VAE, a batch each."""


def kept_below(home: Path, output: Path) -> Path:
    """Return the folder of what later trainings on the same data need not compute again.

    Args:
        home: Folder of the data.
        output: Of the training, for data on a disk that is not writable.
    """
    writable = from_main_process(lambda: os.access(home, os.W_OK))
    return (home if writable else output) / ENCODED


def encodings_key(backbone: Backbone, model: str, settings: Any) -> str:
    """Return a hash of what encodings depend on beside the data.

    Args:
        backbone: The model, loaded.
        model: Its name.
        settings: What else, JSON-like.
    """
    networks = backbone.networks.items()
    dtypes = [str(each.dtype) for name, each in networks if name != backbone.part]
    return config_key(FORMAT, encoder_identity(model), dtypes, settings)


def encode(
    examples: Examples,
    backbone: Backbone,
    folder: Path | None = None,
    *,
    posterior: bool = True,
    text_trains: bool = False,
) -> Encoded:
    """Encode images and prompts, or read what an earlier training made of them.

    Latents that the model sampled itself are taken from the pool; other images pass the VAE. All
    processes of a launch call it together, and each makes its share of the shards.

    Args:
        examples: What to encode.
        backbone: The model; one in stages reads its encoders for what is to be encoded alone.
        folder: Where encodings are kept; None keeps them in memory.
        posterior: Keep the deviation of the VAE's posterior too.
        text_trains: Whether text encoders train.

    Returns:
        The examples.

    Raises:
        TastemakerError: An image is missing or corrupt, sizes of an example differ, or the disk is
            full.
    """
    if folder is None:
        index, content = EncodingIndex(None, writing=True), io.BytesIO()
        plan = plan_rows(examples, backbone, index, content.write)
        images, prompts = _Encoder(examples, backbone, index, posterior).fill(None)
        table = np.frombuffer(content.getvalue(), record(plan["images"]))
    else:
        with _suggesting_memory(), exclusive(folder, waits=True):
            plan = from_main_process(lambda: planned(examples, backbone, folder))
            index = EncodingIndex(folder / INDEX, writing=False)
            images, prompts = _Encoder(examples, backbone, index, posterior).fill(folder)
            everywhere(True)  # a barrier: a process reads the shards of all
        table = np.memmap(folder / EXAMPLES, record(plan["images"]), "r")
    shapes = [layout.shape for layout in index.layouts()]
    latents = Latents(images, shapes, [tuple(shape) for shape in plan["shapes"]])
    index.close()
    return Encoded(latents, prompts, table, plan["fingerprint"], text_trains)


@contextlib.contextmanager
def _suggesting_memory() -> Iterator[None]:
    try:
        yield
    except DiskError as error:
        raise TastemakerError(f"{error} Or set cache=none: encodings stay in memory.") from error


def images_at_once(pixels: int) -> int:
    """Return how many images of so many pixels a VAE encodes together."""
    return max(1, min(IMAGES_AT_ONCE, PIXELS_AT_ONCE // pixels))


@dataclass(frozen=True)
class _Encoder:
    """Makes the rows of shards that are missing, in this process's share of them."""

    examples: Examples
    backbone: Backbone
    index: EncodingIndex
    posterior: bool

    def fill(self, folder: Path | None) -> tuple[Shards, Shards]:
        """Make shards of images and of prompts; the networks are there while they are needed."""
        images = Shards(folder, "images", self.index.images_per_shard)
        prompts = Shards(folder, "prompts", self.index.prompts_per_shard)
        counts = _missing(images, self.index.image_counts())
        read = ("vae",) if any(not self.index.layout(each).kept for each in counts) else ()
        with in_memory(self.backbone, read):
            self._fill(images, counts, self._images)
        counts = _missing(prompts, self.index.prompt_counts())
        encoders = [each for each in self.backbone.networks if each.startswith(TEXT)]
        with in_memory(self.backbone, encoders if counts else ()):
            self._fill(prompts, counts, self._prompts)
        return images, prompts

    def _fill(
        self,
        shards: Shards,
        counts: dict[int, int],
        make: Callable[[int, int], Iterator[Tensors]],
    ) -> None:
        if not counts:
            return
        with tqdm(total=sum(counts.values()), desc="encode", unit=shards.kind) as bar:
            for shard in counts:
                shards.fill(shard, functools.partial(make, shard), bar.update)

    def _images(self, shard: int, start: int) -> Iterator[Tensors]:
        """Encode the images of a shard in batches of consecutive ones."""
        backbone, layout = self.backbone, self.index.layout(shard)
        factor = backbone.pipeline.vae_scale_factor
        size = images_at_once(layout.shape[1] * layout.shape[2] * factor**2)
        places = batched(self.index.images_of(shard)[start:], size)
        rows = ([self.examples.image(*each) for each in part] for part in places)
        load = functools.partial(self._loaded, layout.kept)
        for given, values in overlapped(load, rows, DECODERS):
            if layout.kept:
                tensors = {"mean": values}
            else:
                mean, std = backbone.vae.encode(values)
                tensors = {"mean": mean.cpu()} | ({"std": std.cpu()} if self.posterior else {})
            pairs = zip(given, tensors["mean"], strict=True)
            further = stack([backbone.image_conditioning(*each) for each in pairs])
            yield tensors | {f"{CONDITIONING}{name}": value for name, value in further.items()}

    @staticmethod
    def _loaded(
        kept: bool, rows: list[dict[str, Any]]
    ) -> tuple[list[dict[str, Any]], torch.Tensor]:
        """Images' rows, and their latents or pixels."""
        if kept:
            return rows, torch.stack(
                [each for row in rows if (each := latents_of(row)) is not None]
            )
        images = [decode(row["image"]["bytes"], row["candidate_id"]) for row in rows]
        return rows, to_pixels(images)

    def _prompts(self, shard: int, start: int) -> Iterator[Tensors]:
        for part in batched(self.index.prompts_of(shard)[start:], PROMPTS_AT_ONCE):
            embeddings = self.backbone.encode_prompts(part).items()
            tokens = self.backbone.tokenize(part).items()
            yield {
                **{name: value.cpu() for name, value in embeddings},
                **{f"{TOKENS}{name}": value for name, value in tokens},
            }


def _missing(shards: Shards, counts: dict[int, int]) -> dict[int, int]:
    """Rows of the shards that this process has to make, by shard."""
    own = counts if shards.folder is None else filter(is_mine, counts)
    return {shard: counts[shard] for shard in own if not shards.whole(shard)}


def is_mine(shard: int) -> bool:
    """True for the shards of this process: a fixed rule, which needs no word between processes."""
    if number_of_processes() == 1:
        return True
    state = processes()
    return bool(shard % state.num_processes == state.process_index)
