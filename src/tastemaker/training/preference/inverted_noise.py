"""Noise of pairs' images by DDIM inversion, kept in shards beside the encodings."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from tastemaker.backbones import Backbone, model_identity
from tastemaker.backbones.inversion import invert
from tastemaker.backbones.staged import load_parts
from tastemaker.config.training import TrainConfig
from tastemaker.core.batching import batched
from tastemaker.core.errors import TastemakerError
from tastemaker.core.hardware import everywhere
from tastemaker.storage.encodings import Encoded, Shards, Tensors
from tastemaker.storage.files import config_key
from tastemaker.storage.locks import exclusive
from tastemaker.training.encoding import is_mine

PER_SHARD = 256


@dataclass(frozen=True, eq=False)
class InvertedNoise:
    """Noise of the images of pairs.

    Attributes:
        shards: A row per image and prompt.
        rows: Of chosen and rejected images, [pairs, 2].
    """

    shards: Shards
    rows: torch.Tensor

    def of(self, pairs: torch.Tensor) -> torch.Tensor:
        """Read noise, float32, [2 * pairs, channels, h, w], that of the chosen images first."""
        return self.shards.read(self.rows[pairs].T.reshape(-1).tolist())["noise"]


def inverted_noise(
    config: TrainConfig, backbone: Backbone, data: Encoded, folder: Path | None
) -> InvertedNoise:
    """Invert the images of pairs with their prompts, or read what an earlier training made.

    Args:
        config: Of the training; batches are its `batch_size`.
        backbone: The model, before anything of it trains.
        data: The encoded pairs.
        folder: Where noise is kept; None keeps it in memory.

    Raises:
        TastemakerError: The images have several sizes, or the disk is full.
    """
    if len(data.latents.shapes) > 1:
        raise TastemakerError("train.noise=inverted needs images of one size; pair such alone.")
    images = data.examples["images"].astype(np.int64)
    prompts = np.repeat(data.examples["prompt"].astype(np.int64)[:, None], 2, 1)
    both = np.stack([images.reshape(-1), prompts.reshape(-1)], 1)
    items, rows = np.unique(both, axis=0, return_inverse=True)
    place = None
    if folder is not None:
        about = (model_identity(config.model), data.fingerprint, config.dtype, config.batch_size)
        place = folder / f"inverted-{config_key(*about, config.inversion_steps)}"
    shards = Shards(place, "noise", PER_SHARD)
    if place is None:
        _fill(shards, config, backbone, data, items.tolist())
    else:
        with exclusive(place, waits=True):
            _fill(shards, config, backbone, data, items.tolist())
            everywhere(True)  # a barrier: a process reads the shards of all
    return InvertedNoise(shards, torch.from_numpy(rows.reshape(-1, 2)))


def _fill(
    shards: Shards,
    config: TrainConfig,
    backbone: Backbone,
    data: Encoded,
    items: Sequence[Sequence[int]],
) -> None:
    """Make the shards that are missing, in this process's share of them."""

    def made(part: Sequence[Sequence[int]], start: int) -> Iterator[Tensors]:
        for rows in batched(part[start:], config.batch_size):
            images, prompts = torch.tensor(rows).T
            latents, _ = data.latents.take(images)
            given = data.text(prompts)[0] | data.latents.conditioning(images)
            dtype = backbone.denoiser.dtype
            conditioning = {key: each.to(backbone.device, dtype) for key, each in given.items()}
            latents = latents.to(backbone.device)
            yield {"noise": invert(backbone, latents, conditioning, config.inversion_steps).cpu()}

    every = list(enumerate(batched(items, PER_SHARD)))
    own = [each for each in every if shards.folder is None or is_mine(each[0])]
    todo = [(shard, part) for shard, part in own if not shards.whole(shard)]
    load_parts(backbone, (backbone.part,) if todo else ())
    with tqdm(total=sum(len(part) for _, part in todo), desc="invert", unit="images") as bar:
        for shard, part in todo:
            shards.fill(shard, functools.partial(made, part), bar.update)
