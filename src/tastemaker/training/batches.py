"""Noisy batches drawn from encoded images.

Which images, timesteps and noise a sample has depends on the seed and its number in the run alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from tastemaker.backbones import Backbone, Conditioning
from tastemaker.training.latents import Latents


@dataclass(frozen=True)
class NoisyBatch:
    """Noisy images: of pairs the chosen first, then the rejected; policy and reference see both.

    Attributes:
        noisy_latents: Shape [images, channels, h, w].
        timesteps: Shape [images]; a pair shares its timestep.
        target: What the prediction should be.
        conditioning: Prompt embeddings, one row per image.
        tokens: Input of the text encoders, one row per image, where they train.
    """

    noisy_latents: torch.Tensor
    timesteps: torch.Tensor
    target: torch.Tensor
    conditioning: Conditioning
    tokens: Conditioning | None = None


def noisy_batch(
    backbone: Backbone,
    latents: Latents,
    images: torch.Tensor,
    generators: Sequence[torch.Generator],
    conditioning: Conditioning,
    tokens: Conditioning | None = None,
    *,
    sample_posterior: bool = True,
    densities: Sequence[torch.Tensor | None] | None = None,
) -> NoisyBatch:
    """Add noise to encoded images.

    Args:
        backbone: The model.
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

    Returns:
        The batch on the model's device.
    """
    mean, std = latents.take(images)
    shape, sides = mean.shape[1:], len(images) // len(generators)
    density = densities[int(latents.bucket(images[:1]))] if densities else None
    length = len(backbone.noise_schedule.alpha)
    timesteps = torch.cat([draw_timestep(density, length, each) for each in generators])
    noise = torch.stack([torch.randn(shape, generator=each) for each in generators])
    if sample_posterior and std is not None:
        samples = [torch.randn(shape, generator=each) for _ in range(sides) for each in generators]
        mean = mean + std * torch.stack(samples)
    device = backbone.device
    clean, noise = moved(mean, device), moved(torch.cat([noise] * sides), device)
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
    """Prediction minus target of a denoiser, without guidance.

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
    prediction = backbone.predict(denoiser, batch.noisy_latents, batch.timesteps, conditioning)
    return prediction.float() - batch.target.float()


def mean_square(residual: torch.Tensor) -> torch.Tensor:
    """`error_i = mean(residual_i^2)` over a latent's elements, one value per image."""
    return residual.square().flatten(1).mean(1)


def moved(value: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Move a tensor of the CPU; a GPU copies it from pinned memory when its turn comes."""
    if device.type != "cuda":
        return value.to(device)
    return value.pin_memory().to(device, non_blocking=True)
