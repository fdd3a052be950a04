"""Pairs to batches: latents cached once an image, embeddings once a prompt, keyed draws."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from tastemaker.backbones import Backbone, Conditioning, select, stack
from tastemaker.backbones.latents import encode_row
from tastemaker.core.errors import TastemakerError
from tastemaker.core.seeding import keyed_generator
from tastemaker.storage.files import DamagedError, read_table, read_tensors, write_tensors
from tastemaker.storage.pairs import PairSet
from tastemaker.training.latents import Latents, bucketed_indices
from tastemaker.training.preference.credit import draw_timesteps

Density = Callable[[int, int], torch.Tensor | None]
"""From height and width of latents to how often each timestep is drawn, shape [T]."""

EMPTY = ""
"""The prompt that prompt dropout puts in a pair's place."""


@dataclass(frozen=True)
class NoisyBatch:
    """Noisy images: of pairs the chosen first, then the rejected; policy and reference see both.

    Attributes:
        noisy_latents: Shape [images, channels, h, w].
        timesteps: Shape [images]; a pair shares its timestep.
        target: What the prediction should be.
        conditioning: Prompt embeddings, one row an image.
        tokens: What text encoders read, one row an image, where they train.
    """

    noisy_latents: torch.Tensor
    timesteps: torch.Tensor
    target: torch.Tensor
    conditioning: Conditioning
    tokens: Conditioning | None = None


@dataclass(frozen=True)
class TrainingData:
    """All that training needs of the pairs, in memory.

    Attributes:
        latents: One row an image.
        prompts: Embeddings, one row a prompt.
        chosen: Row of each pair's chosen image.
        rejected: Row of each pair's rejected image.
        prompt: Row of each pair's prompt.
        by_gap: Pairs in order of falling margin, the order of a curriculum.
        texts: The prompts themselves, in the order of their rows; the empty one is the first.
        tokens: What text encoders read, one row a prompt, where they train.
        images: What else the denoiser is told of an image, one row an image; mostly empty.
    """

    latents: Latents
    prompts: Conditioning
    chosen: torch.Tensor
    rejected: torch.Tensor
    prompt: torch.Tensor
    by_gap: torch.Tensor
    texts: tuple[str, ...] = ()
    tokens: Conditioning | None = None
    images: Conditioning = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.chosen)

    def with_tokens(self, backbone: Backbone) -> TrainingData:
        """Return the data with its prompts as text encoders read them."""
        return replace(self, tokens=backbone.tokenize(self.texts))


def cache_data(pairs: PairSet, backbone: Backbone, cache: Path) -> TrainingData:
    """Encode the pairs' images and prompts, or read the cache of an earlier start.

    Latents that the model drew itself are taken from the pool; other images pass the VAE.

    Args:
        pairs: The pairs.
        backbone: The model, with its encoders.
        cache: A safetensors file to keep the encodings in.

    Returns:
        The data, on the CPU.

    Raises:
        TastemakerError: An image is missing or corrupt, or sizes differ.
    """
    table = pairs.table().to_pydict()
    ids = sorted({*table["chosen_id"], *table["rejected_id"]})
    prompts = sorted({EMPTY, *table["prompt"]})
    tensors = _read_cache(cache)
    if tensors is None:
        tensors = _encode(pairs, ids, prompts, backbone)
        write_tensors(cache, tensors)
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
        by_gap=torch.tensor(table["margin"]).argsort(descending=True, stable=True),
        texts=tuple(prompts),
    )


def available_pairs(pairs: int, step: int, *, chunks: int, every: int) -> int:
    """How many of the pairs with the widest gap a step of a curriculum may draw.

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


def noisy_batch(
    data: TrainingData,
    backbone: Backbone,
    draws: Sequence[int],
    *,
    seed: int,
    sample_posterior: bool,
    proportion_empty_prompts: float = 0.0,
    density: Density | None = None,
    available: int | None = None,
    step: int | None = None,
) -> NoisyBatch:
    """Assemble the examples at the given positions of the run.

    Timestep, noise and posterior sample are keyed by the position alone, so that neither batch
    size, accumulation, processes nor resume points change them. Chosen and rejected of a pair
    share timestep and noise.

    Args:
        data: Cached latents and embeddings.
        backbone: The model.
        draws: Positions in the run.
        seed: The run's seed.
        sample_posterior: Sample the VAE's posterior, or take its mean.
        proportion_empty_prompts: Share of pairs with the empty prompt in policy and reference.
        density: How often each timestep is drawn, by the latents' height and width; None draws
            uniformly.
        available: Draw from so many pairs of the widest gap alone; None draws from all.
        step: Examples per optimizer step; they are of one size. None: these.

    Returns:
        The batch on the model's device.
    """
    among = data.by_gap[:available] if available and available < len(data) else None
    bucket = data.latents.bucket[data.chosen if among is None else data.chosen[among]]
    buckets = tuple(bucket.tolist())
    index = torch.tensor(bucketed_indices(draws, buckets, step or len(draws), seed))
    if among is not None:
        index = among[index]
    images = torch.cat([data.chosen[index], data.rejected[index]])
    latents, std = data.latents.take(images)
    generators = [keyed_generator(seed, "draw", draw) for draw in draws]
    shape = latents.shape[1:]
    often = density(*shape[1:]) if density else None
    timesteps = torch.cat(
        [draw_timesteps(often, backbone.num_timesteps, each) for each in generators]
    )
    noise = torch.stack([torch.randn(shape, generator=each) for each in generators])
    if sample_posterior:
        chosen = [torch.randn(shape, generator=each) for each in generators]
        rejected = [torch.randn(shape, generator=each) for each in generators]
        latents = latents + std * torch.stack(chosen + rejected)
    device = backbone.device
    latents, noise = latents.to(device), torch.cat([noise, noise]).to(device)
    timesteps = torch.cat([timesteps, timesteps]).to(device)
    # The empty prompt's row is the first.
    rows = data.prompt[index] * ~dropped_prompts(draws, proportion_empty_prompts, seed)
    return NoisyBatch(
        noisy_latents=backbone.add_noise(latents, noise, timesteps),
        timesteps=timesteps,
        target=backbone.target(latents, noise, timesteps),
        conditioning={
            **_twice(data.prompts, rows, device),
            **{name: value[images].to(device) for name, value in data.images.items()},
        },
        tokens=None if data.tokens is None else _twice(data.tokens, rows, device),
    )


def dropped_prompts(draws: Sequence[int], share: float, seed: int) -> torch.Tensor:
    """Return which examples train with the empty prompt.

    As sampling with classifier-free guidance needs a model that still draws without a prompt.

    Args:
        draws: Positions in the run.
        share: Probability of each, 0 to 1; 0.2 in the reference implementation of Diffusion-DPO.
        seed: The run's seed.

    Returns:
        Booleans, shape [draws].

    References:
        Ho and Salimans, classifier-free diffusion guidance, arXiv 2207.12598.
    """
    generators = [keyed_generator(seed, "prompt dropout", draw) for draw in draws]
    return torch.cat([torch.rand(1, generator=each) for each in generators]) < share


def _twice(values: Conditioning, rows: torch.Tensor, device: torch.device) -> Conditioning:
    """Rows of the prompts, for the chosen images and again for the rejected."""
    return stack([{k: v.to(device) for k, v in select(values, rows).items()}] * 2)


def _encode(
    pairs: PairSet, ids: Sequence[str], prompts: Sequence[str], backbone: Backbone
) -> dict[str, torch.Tensor]:
    means: dict[str, torch.Tensor] = {}
    stds: dict[str, torch.Tensor] = {}
    told: dict[str, Conditioning] = {}
    with tqdm(total=len(ids), desc="encode", unit="images") as bar:
        for row in _rows(pairs, set(ids)):
            name = row["candidate_id"]
            means[name], stds[name] = encode_row(backbone, row)
            told[name] = backbone.image_conditioning(row, means[name])
            bar.update()
    lost = [each for each in ids if each not in means]
    if lost:
        raise TastemakerError(
            f"{len(lost)} images of {pairs.file} are in none of its pools (first: {lost[0]});"
            " pair again, or restore the pool."
        )
    latents = Latents.of([means[each] for each in ids], [stds[each] for each in ids])
    embeddings = stack([backbone.encode_prompts([prompt]) for prompt in prompts])
    return {
        **{f"latents.{name}": value for name, value in latents.tensors().items()},
        **{f"prompts.{name}": value.float().cpu() for name, value in embeddings.items()},
        **{f"images.{name}": value for name, value in stack([told[each] for each in ids]).items()},
    }


def _part(tensors: Conditioning, kind: str) -> Conditioning:
    return {
        name.removeprefix(f"{kind}."): value
        for name, value in tensors.items()
        if name.startswith(f"{kind}.")
    }


def _rows(pairs: PairSet, ids: set[str]) -> Iterator[dict[str, Any]]:
    for pool in pairs.pools():
        for shard in pool.shards():
            table = read_table(shard)
            names = table["candidate_id"].to_pylist()
            for row, name in enumerate(names):
                if name in ids:
                    yield from table.slice(row, 1).to_pylist()


def _read_cache(cache: Path) -> dict[str, torch.Tensor] | None:
    if not cache.is_file():
        return None
    try:
        return read_tensors(cache)[0]
    except DamagedError:
        print(f"{cache} is damaged; it is made again.")
        return None
