"""Noisy batches: the order of examples, their timesteps and noise, and a denoiser's residual.

Which example, timestep and noise a sample has depends on the seed and its number in the run alone.
The work for a batch does not grow with the data: permutations are made once per epoch.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch

from tastemaker.backbones import Backbone, Conditioning
from tastemaker.backbones.gradient_sampling import guided_prediction
from tastemaker.backbones.sampling_batch import SamplingBatch
from tastemaker.core.seeding import keyed_generator
from tastemaker.storage.encodings import Latents


def pair_index(draw: int, pairs: int, seed: int) -> int:
    """Return the index of the pair of the run's `draw`-th sample; each epoch is a permutation.

    Args:
        draw: Number of the sample in the run, from 0.
        pairs: Number of pairs.
        seed: The run's seed.

    Returns:
        An index below `pairs`.
    """
    epoch, position = divmod(draw, pairs)
    return int(_permutation(pairs, seed, "order", epoch)[position])


def bucketed_indices(
    draws: Sequence[int], sizes: tuple[int, ...], step: int, seed: int
) -> list[tuple[int, int]]:
    """Return bucket and index in it of samples, so that those of a step share a bucket.

    Each epoch shuffles every bucket, cuts it into steps, the last filled up from the bucket's
    beginning, and shuffles the steps. How a step is cut into batches does not enter.

    Args:
        draws: Numbers of the samples in the run, from 0.
        sizes: Pairs of each bucket; where one alone has any, the indices are `pair_index`.
        step: Samples per optimizer step, in all processes.
        seed: The run's seed.

    Returns:
        Per sample a bucket's number, and an index below its size.
    """
    filled = [bucket for bucket, size in enumerate(sizes) if size]
    if len(filled) == 1:
        return [(filled[0], pair_index(draw, sizes[filled[0]], seed)) for draw in draws]
    ends = list(accumulate(-(-size // step) for size in sizes))
    found = []
    for draw in draws:
        epoch, position = divmod(draw, ends[-1] * step)
        steps, *orders = _epoch(sizes, ends[-1], seed, epoch)
        place = int(steps[position // step])
        bucket = next(number for number, end in enumerate(ends) if place < end)
        first = place - (ends[bucket - 1] if bucket else 0)
        index = (first * step + position % step) % sizes[bucket]
        found.append((bucket, int(orders[bucket][index])))
    return found


@functools.lru_cache(maxsize=2)
def _permutation(length: int, seed: int, *key: int | str) -> torch.Tensor:
    """A permutation of [0, length), 4 bytes per item."""
    return torch.randperm(length, generator=keyed_generator(seed, *key), dtype=torch.int32)


@functools.lru_cache(maxsize=2)
def _epoch(sizes: tuple[int, ...], steps: int, seed: int, epoch: int) -> list[torch.Tensor]:
    """The permutation of an epoch's steps, then that of each bucket."""
    uncached = _permutation.__wrapped__
    orders = [uncached(size, seed, "order", epoch, bucket) for bucket, size in enumerate(sizes)]
    return [uncached(steps, seed, "steps", epoch), *orders]


@dataclass(frozen=True)
class BatchLoss:
    """Loss of one micro-batch.

    Attributes:
        loss: Scalar with its graph.
        metrics: Scalars without.
        details: What `Trainer.after_update` needs of the batch, without graph.
    """

    loss: torch.Tensor
    metrics: dict[str, torch.Tensor]
    details: tuple[torch.Tensor, ...] = ()


@dataclass(frozen=True)
class NoisyBatch:
    """Noisy images: of pairs the chosen first, then the rejected; policy and reference see both.

    Attributes:
        noisy_latents: Shape [images, channels, h, w].
        timesteps: Shape [images]; a pair shares its timestep.
        target: What the prediction should be.
        conditioning: Prompt embeddings, one row per image.
        tokens: Input of the text encoders, one row per image, where they train.
        guided: Embeddings and scale of guidance, where policy and reference predict with it.
        weight: Factor on the residual, [images, 1, 1, 1]; None for 1.
    """

    noisy_latents: torch.Tensor
    timesteps: torch.Tensor
    target: torch.Tensor
    conditioning: Conditioning
    tokens: Conditioning | None = None
    guided: SamplingBatch | None = None
    weight: torch.Tensor | None = None


def noisy_batch(
    backbone: Backbone,
    device: torch.device,
    latents: Latents,
    images: torch.Tensor,
    generators: Sequence[torch.Generator],
    conditioning: Conditioning,
    tokens: Conditioning | None = None,
    *,
    sample_posterior: bool = True,
    densities: Sequence[torch.Tensor | None] | None = None,
    noise: torch.Tensor | None = None,
) -> NoisyBatch:
    """Add noise to encoded images.

    Args:
        backbone: The model.
        device: Of the batch.
        latents: Of all images.
        images: Indices of images of one bucket: as many as generators, or the chosen and then the
            rejected images of pairs, one generator per pair. Both images of a pair share timestep
            and noise; each has its own sample of the VAE's posterior.
        generators: Each sample's own.
        conditioning: One row per image.
        tokens: The same, where text encoders train.
        sample_posterior: Sample the VAE's posterior, or take its mean.
        densities: How often each timestep is drawn, one density per bucket, unnormalised, shape
            [T]; None draws uniformly.
        noise: Each image's own, [images, channels, h, w]; None draws one per generator.

    Returns:
        The batch on the device.
    """
    mean, std = latents.take(images)
    shape, sides = mean.shape[1:], len(images) // len(generators)
    density = densities[int(latents.bucket(images[:1]))] if densities else None
    length = len(backbone.noise_schedule.alpha)
    timesteps = torch.cat([draw_timestep(density, length, each) for each in generators])
    if noise is None:
        noise = torch.stack([torch.randn(shape, generator=each) for each in generators])
        noise = torch.cat([noise] * sides)
    if sample_posterior and std is not None:
        samples = [torch.randn(shape, generator=each) for _ in range(sides) for each in generators]
        mean = mean + std * torch.stack(samples)
    clean, noise = moved(mean, device), moved(noise, device)
    timesteps = moved(torch.cat([timesteps] * sides), device)
    return NoisyBatch(
        noisy_latents=backbone.add_noise(clean, noise, timesteps),
        timesteps=timesteps,
        target=backbone.target(clean, noise, timesteps),
        conditioning={name: moved(value, device) for name, value in conditioning.items()},
        tokens=tokens and {name: moved(value, device) for name, value in tokens.items()},
    )


def draw_timestep(
    density: torch.Tensor | None, length: int, generator: torch.Generator
) -> torch.Tensor:
    """Draw one timestep, int64, shape [1].

    Args:
        density: Unnormalised, shape [T]; None for uniform.
        length: T.
        generator: The draw's own generator.

    Returns:
        A timestep in [0, T).
    """
    if density is None:
        return torch.randint(length, (1,), generator=generator)
    return torch.multinomial(density, 1, generator=generator)


def residual(
    backbone: Backbone,
    denoiser: torch.nn.Module,
    batch: NoisyBatch,
    text_encoders: Sequence[torch.nn.Module] = (),
) -> torch.Tensor:
    """Prediction minus target of a denoiser, without guidance unless the batch is `guided`.

    Args:
        backbone: Knows how to call the denoiser.
        denoiser: Policy or reference.
        batch: Noisy images.
        text_encoders: They read the batch's tokens, where it has some, in place of the cache.

    Returns:
        Float32, shape [images, channels, h, w].
    """
    conditioning = batch.conditioning
    if batch.tokens is not None:
        conditioning = conditioning | backbone.embed(text_encoders, batch.tokens, conditioning)
    if batch.guided is None:
        prediction = backbone.predict(denoiser, batch.noisy_latents, batch.timesteps, conditioning)
    else:
        predict = guided_prediction(functools.partial(backbone.predict, denoiser), batch.guided)
        prediction = predict(batch.noisy_latents, batch.timesteps)
    residual = prediction.float() - batch.target.float()
    return residual if batch.weight is None else batch.weight * residual


def mean_square(residual: torch.Tensor) -> torch.Tensor:
    """`error_i = mean(residual_i^2)` over a latent's elements, one value per image."""
    return residual.square().flatten(1).mean(1)


def moved(value: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Move a tensor of the CPU; a GPU copies it from pinned memory when its turn comes."""
    if device.type != "cuda":
        return value.to(device)
    return value.pin_memory().to(device, non_blocking=True)
