"""Pairs to tensors: each image encoded once, each prompt once, cached in a file."""

from __future__ import annotations

import contextlib
import functools
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from tqdm import tqdm

from tastemaker.backbones import Backbone, Conditioning, stack
from tastemaker.backbones.latents import encode_row
from tastemaker.core.errors import TastemakerError
from tastemaker.storage.files import DamagedError
from tastemaker.storage.tensors import read_tensors, write_tensors
from tastemaker.storage.unfinished import UNFINISHED, saved_when_stopped
from tastemaker.training.batches import Latents
from tastemaker.training.preference.pairs import Pairs

EMPTY = ""
"""The prompt of dropped prompts."""


@dataclass(frozen=True, eq=False)
class TrainingData:
    """Encoded pairs, in memory.

    Attributes:
        latents: One row per image.
        prompts: Embeddings, one row per prompt.
        chosen: Row of each pair's chosen image.
        rejected: Row of each pair's rejected image.
        prompt: Row of each pair's prompt.
        score_gap: Of each pair, shape [pairs].
        texts: The prompts themselves, in the order of their rows; the empty one is the first.
        tokens: Input of the text encoders, one row per prompt, where they train.
        images: Further conditioning, one row per image (SDXL's sizes); empty in most families.
    """

    latents: Latents
    prompts: Conditioning
    chosen: torch.Tensor
    rejected: torch.Tensor
    prompt: torch.Tensor
    score_gap: torch.Tensor
    texts: tuple[str, ...] = ()
    tokens: Conditioning | None = None
    images: Conditioning = field(default_factory=dict)

    @functools.cached_property
    def by_gap(self) -> torch.Tensor:
        """Pairs in order of falling score gap, the order of a curriculum."""
        return self.score_gap.argsort(descending=True, stable=True)

    def members(self, available: int | None = None) -> list[Sequence[int] | torch.Tensor]:
        """Return the pairs of each bucket.

        Args:
            available: Of so many pairs with the widest gap; None: of all.
        """
        return _members(self, available if available and available < len(self.chosen) else None)

    def fingerprint(self) -> str:
        """Hash everything that training reads of the pairs."""
        parts = {
            **self.latents.tensors(),
            **{f"prompts.{name}": value for name, value in self.prompts.items()},
            **{f"images.{name}": value for name, value in self.images.items()},
            **{side: getattr(self, side) for side in ("chosen", "rejected", "prompt", "score_gap")},
        }
        return fingerprint(parts)

    def with_tokens(self, backbone: Backbone) -> TrainingData:
        """Return the data with its prompts as text encoders read them."""
        return replace(self, tokens=backbone.tokenize(self.texts))


def cache_data(pairs: Pairs, backbone: Backbone, cache: Path | None = None) -> TrainingData:
    """Encode the pairs' images and prompts, or read the cache of an earlier start.

    Latents that the model sampled itself are taken from the pool; other images pass the VAE.

    Args:
        pairs: The pairs.
        backbone: The model, with its encoders.
        cache: A safetensors file to keep the encodings in; None keeps nothing.

    Returns:
        The data, on the CPU.

    Raises:
        TastemakerError: An image is missing or corrupt, or sizes differ.
    """
    table = pairs.columns()
    ids = sorted({*table["chosen_id"], *table["rejected_id"]})
    prompts = sorted({EMPTY, *table["prompt"]})
    tensors = None if cache is None else _read_cache(cache)
    if tensors is None:
        tensors = _encode(pairs, ids, prompts, backbone, cache)
    latents = Latents.from_tensors(_part(tensors, "latents"))
    row = {candidate: i for i, candidate in enumerate(ids)}
    line = {prompt: i for i, prompt in enumerate(prompts)}
    chosen, rejected = (
        torch.tensor([row[each] for each in table[side]]) for side in ("chosen_id", "rejected_id")
    )
    unequal = latents.bucket[chosen] != latents.bucket[rejected]
    if unequal.any():
        first = table["prompt"][int(unequal.nonzero()[0])]
        raise TastemakerError(
            f"{int(unequal.sum())} pairs have images of two sizes (first: {first!r}); import or"
            " draw both sides at one size."
        )
    return TrainingData(
        latents=latents,
        prompts=_part(tensors, "prompts"),
        images=_part(tensors, "images"),
        chosen=chosen,
        rejected=rejected,
        prompt=torch.tensor([line[each] for each in table["prompt"]]),
        score_gap=torch.tensor(table["margin"], dtype=torch.float32),
        texts=tuple(prompts),
    )


@functools.lru_cache(maxsize=1)  # it changes with the stages of a curriculum alone
def _members(data: TrainingData, available: int | None) -> list[Sequence[int] | torch.Tensor]:
    among = None if available is None else data.by_gap[:available]
    bucket = data.latents.bucket[data.chosen if among is None else data.chosen[among]]
    if among is None and not bucket.any():
        return [range(len(bucket))]
    found = [(bucket == number).nonzero()[:, 0] for number in range(int(bucket.max()) + 1)]
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


def _encode(
    pairs: Pairs,
    ids: Sequence[str],
    prompts: Sequence[str],
    backbone: Backbone,
    cache: Path | None,
) -> dict[str, torch.Tensor]:
    """Encode images and prompts, and write the cache."""
    part = cache and cache.with_name(f"{UNFINISHED}-{cache.name}")
    encoded = _read_part(part) if part else {}
    missing = {each for each in ids if f"image {each}" not in encoded}
    done = len(ids) - len(missing)
    with saved_when_stopped(part, encoded, _write_part) if part else contextlib.nullcontext():
        with tqdm(total=len(ids), initial=done, desc="encode", unit="images") as bar:
            for row in pairs.images(missing):
                mean, std = encode_row(backbone, row)
                further = backbone.image_conditioning(row, mean)
                encoded[f"image {row['candidate_id']}"] = {"mean": mean, "std": std, **further}
                bar.update()
        for prompt in prompts:
            if f"prompt {prompt}" not in encoded:
                embedding = backbone.encode_prompts([prompt])
                on_cpu = {name: value.float().cpu() for name, value in embedding.items()}
                encoded[f"prompt {prompt}"] = on_cpu
        rows = [dict(encoded[f"image {each}"]) for each in ids]
        latents = Latents.of([row.pop("mean") for row in rows], [row.pop("std") for row in rows])
        embeddings = stack([encoded[f"prompt {each}"] for each in prompts])
        tensors = {
            **{f"latents.{name}": value for name, value in latents.tensors().items()},
            **{f"prompts.{name}": value for name, value in embeddings.items()},
            **{f"images.{name}": value for name, value in stack(rows).items()},
        }
        if cache is not None:
            write_tensors(cache, tensors)
    return tensors


def _read_part(file: Path) -> dict[str, Conditioning]:
    encoded: dict[str, Conditioning] = {}
    for key, value in (_read_cache(file) or {}).items():
        kind, _, name = key.partition(".")
        encoded.setdefault(name, {})[kind] = value
    return encoded


def _write_part(file: Path, encoded: dict[str, Conditioning]) -> None:
    parts = ((name, kind, value) for name, row in encoded.items() for kind, value in row.items())
    write_tensors(file, {f"{kind}.{name}": value for name, kind, value in parts})


def _part(tensors: Conditioning, kind: str) -> Conditioning:
    return {
        name.removeprefix(f"{kind}."): value
        for name, value in tensors.items()
        if name.startswith(f"{kind}.")
    }


def _read_cache(cache: Path) -> dict[str, torch.Tensor] | None:
    if not cache.is_file():
        return None
    try:
        return read_tensors(cache)[0]
    except DamagedError:
        print(f"{cache} is damaged; it is made again.")
        return None
