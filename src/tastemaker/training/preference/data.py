"""Pairs as tensors: rows of encoded images and prompts, read from disk as they are drawn."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tastemaker.backbones import Backbone, Conditioning
from tastemaker.storage.pairs import PairSet
from tastemaker.training.encoding import Encoded, encode, kept_below, read_prompts
from tastemaker.training.latents import Latents
from tastemaker.training.preference.pairs import open_pairs


@dataclass(frozen=True, eq=False)
class TrainingData:
    """Encoded pairs: of each the rows of its chosen and rejected image and of its prompt.

    Attributes:
        encoded: Images, prompts and pairs.
        text_trains: Whether prompts are read as tokens too, for text encoders that train.
    """

    encoded: Encoded
    text_trains: bool = False

    def __len__(self) -> int:
        """Return the number of pairs."""
        return len(self.encoded.examples)

    @property
    def latents(self) -> Latents:
        """Latents, one row per image."""
        return self.encoded.latents

    @functools.cached_property
    def by_gap(self) -> torch.Tensor:
        """Pairs in order of falling score gap, the order of a curriculum."""
        return torch.tensor(self.encoded.examples["gap"]).argsort(descending=True, stable=True)

    def members(self, available: int | None = None) -> list[Sequence[int] | torch.Tensor]:
        """Return the pairs of each bucket.

        Args:
            available: Of so many pairs with the widest gap; None: of all.
        """
        return _members(self, available if available and available < len(self) else None)

    def images(self, pairs: torch.Tensor) -> torch.Tensor:
        """Return the rows of pairs' images, all chosen ones first, shape [2 * pairs]."""
        rows = self.encoded.examples["images"][pairs.numpy()]
        return torch.from_numpy(rows.T.astype(np.int64).reshape(-1))

    def prompts(self, pairs: torch.Tensor) -> torch.Tensor:
        """Return the rows of pairs' prompts, shape [pairs]."""
        return torch.from_numpy(self.encoded.examples["prompt"][pairs.numpy()].astype(np.int64))

    def score_gap(self, pairs: torch.Tensor) -> torch.Tensor:
        """Return pairs' score gaps, shape [pairs]."""
        return torch.from_numpy(self.encoded.examples["gap"][pairs.numpy()])

    def text(self, prompts: torch.Tensor) -> tuple[Conditioning, Conditioning | None]:
        """Read prompts.

        Args:
            prompts: Their rows.

        Returns:
            Embeddings, float32, and tokens where text encoders train; one row per prompt.
        """
        return read_prompts(self.encoded, prompts, tokens=self.text_trains)


def kept_in(pairs: Any, output: Path) -> Path | None:
    """Return the folder of what later trainings on the same pairs need not compute again.

    Args:
        pairs: As a trainer takes them.
        output: Of the training, for pairs on a disk that is not writable.

    Returns:
        None for pairs that are in no folder.
    """
    if not isinstance(pairs, str | Path | PairSet):
        return None
    return kept_below(pairs.folder if isinstance(pairs, PairSet) else Path(pairs), output)


def cache_data(
    pairs: str | Path | PairSet | Sequence[Mapping[str, Any]],
    backbone: Backbone,
    folder: Path | None = None,
    *,
    posterior: bool = True,
    text_trains: bool = False,
) -> TrainingData:
    """Encode the pairs' images and prompts, or read the encodings of an earlier training.

    Args:
        pairs: As for `open_pairs`.
        backbone: The model, with its encoders.
        folder: Where encodings are kept; None keeps them in memory.
        posterior: Keep the deviation of the VAE's posterior too.
        text_trains: Whether text encoders train.

    Returns:
        The data, on the CPU.

    Raises:
        TastemakerError: An image is missing or corrupt, or sizes differ.
    """
    encoded = encode(open_pairs(pairs), backbone, folder, posterior=posterior)
    return TrainingData(encoded, text_trains)


@functools.lru_cache(maxsize=1)  # it changes with the stages of a curriculum alone
def _members(data: TrainingData, available: int | None) -> list[Sequence[int] | torch.Tensor]:
    if available is None and len(data.latents.shapes) == 1:
        return [range(len(data))]
    among = None if available is None else data.by_gap[:available]
    chosen = torch.tensor(data.encoded.examples["images"][:, 0].astype(np.int64))
    bucket = data.latents.bucket(chosen if among is None else chosen[among])
    found = [(bucket == number).nonzero()[:, 0] for number in range(len(data.latents.shapes))]
    return [each if among is None else among[each] for each in found]


def fingerprint(tensors: Mapping[str, torch.Tensor]) -> str:
    """Hash tensors with their names."""
    digest = hashlib.blake2b(digest_size=16)
    for name, value in sorted(tensors.items()):
        flat = value.detach().cpu().contiguous().reshape(-1)
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def available_pairs(pairs: int, step: int, *, chunks: int, every: int) -> int:
    """Return how many of the pairs with the widest gap a step of a curriculum may draw.

    Args:
        pairs: Number of pairs.
        step: Optimizer step, from 0.
        chunks: Parts of the pairs.
        every: Steps until the next part is added.

    Returns:
        `ceil(pairs * k / chunks)` with `k = min(1 + step // every, chunks)`.

    Example:
        >>> [available_pairs(10, step, chunks=4, every=2) for step in range(8)]
        [3, 3, 5, 5, 8, 8, 10, 10]

    References:
        Curriculum-DPO, arXiv 2405.13637.
    """
    return -(-pairs * min(1 + step // every, chunks) // chunks)
