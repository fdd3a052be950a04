"""Pairs to batches: latents cached once an image, embeddings once a prompt, keyed draws."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from tqdm import tqdm

from tastemaker.backbones import Backbone, Conditioning, select, stack
from tastemaker.errors import TastemakerError
from tastemaker.files import read_table, write_tensors
from tastemaker.records import PairSet
from tastemaker.seeding import keyed_generator
from tastemaker.train.credit import draw_timesteps


@dataclass(frozen=True)
class Latents:
    """Posteriors of the pool's images, in the units that the denoiser sees.

    Attributes:
        mean: Shape [images, channels, h, w].
        std: The same shape; zero where the model drew the latents itself.
    """

    mean: torch.Tensor
    std: torch.Tensor


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
        texts: The prompts themselves, in the order of their rows.
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
    prompts = sorted(set(table["prompt"]))
    tensors = _read_cache(cache)
    if tensors is None:
        tensors = _encode(pairs, ids, prompts, backbone)
        write_tensors(cache, tensors)
    row = {candidate: i for i, candidate in enumerate(ids)}
    line = {prompt: i for i, prompt in enumerate(prompts)}
    return TrainingData(
        latents=Latents(tensors["latents.mean"], tensors["latents.std"]),
        prompts=_part(tensors, "prompts"),
        images=_part(tensors, "images"),
        chosen=torch.tensor([row[each] for each in table["chosen_id"]]),
        rejected=torch.tensor([row[each] for each in table["rejected_id"]]),
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


def pair_index(draw: int, pairs: int, seed: int) -> int:
    """Return which pair the run's `draw`-th example is: each epoch a permutation of its own.

    Args:
        draw: Position in the run, from 0.
        pairs: Number of pairs.
        seed: The run's seed.

    Returns:
        An index below `pairs`.
    """
    epoch, position = divmod(draw, pairs)
    return int(_permutation(pairs, seed, epoch)[position])


_permutations: dict[tuple[int, int, int], torch.Tensor] = {}


def _permutation(pairs: int, seed: int, epoch: int) -> torch.Tensor:
    key = (pairs, seed, epoch)
    if key not in _permutations:
        _permutations.clear()
        generator = keyed_generator(seed, "order", epoch)
        _permutations[key] = torch.randperm(pairs, generator=generator)
    return _permutations[key]


def noisy_batch(
    data: TrainingData,
    backbone: Backbone,
    draws: Sequence[int],
    *,
    seed: int,
    sample_posterior: bool,
    density: torch.Tensor | None = None,
    available: int | None = None,
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
        density: How often each timestep is drawn, shape [T]; None draws uniformly.
        available: Draw from so many pairs of the widest gap alone; None draws from all.

    Returns:
        The batch on the model's device.
    """
    index = torch.tensor([pair_index(draw, available or len(data), seed) for draw in draws])
    if available is not None and available < len(data):
        index = data.by_gap[index]
    generators = [keyed_generator(seed, "draw", draw) for draw in draws]
    timesteps = torch.cat(
        [draw_timesteps(density, backbone.num_timesteps, each) for each in generators]
    )
    shape = data.latents.mean.shape[1:]
    noise = torch.stack([torch.randn(shape, generator=each) for each in generators])
    images = torch.cat([data.chosen[index], data.rejected[index]])
    latents = data.latents.mean[images].float()
    if sample_posterior:
        chosen = [torch.randn(shape, generator=each) for each in generators]
        rejected = [torch.randn(shape, generator=each) for each in generators]
        latents = latents + data.latents.std[images].float() * torch.stack(chosen + rejected)
    device = backbone.device
    latents, noise = latents.to(device), torch.cat([noise, noise]).to(device)
    timesteps = torch.cat([timesteps, timesteps]).to(device)
    rows = data.prompt[index]
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
            means[name], stds[name] = backbone.encode_row(row)
            told[name] = backbone.image_conditioning(row, means[name])
            bar.update()
    lost = [each for each in ids if each not in means]
    if lost:
        raise TastemakerError(
            f"{len(lost)} images of {pairs.file} are in none of its pools (first: {lost[0]});"
            " pair again, or restore the pool."
        )
    shapes = {tuple(mean.shape) for mean in means.values()}
    if len(shapes) > 1:
        raise TastemakerError(f"the pairs' images differ in latent size: {sorted(shapes)}.")
    embeddings = stack([backbone.encode_prompts([prompt]) for prompt in prompts])
    return {
        "latents.mean": torch.stack([means[each] for each in ids]),
        "latents.std": torch.stack([stds[each] for each in ids]),
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
        return load_file(cache)
    except SafetensorError:
        return None
