"""DDIM inversion: the noise that a deterministic sampler would draw an image from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from tastemaker.backbones.conditioning import Conditioning
from tastemaker.backbones.sampling_batch import SamplingBatch, require_finite

if TYPE_CHECKING:
    from tastemaker.backbones.base import Backbone


@torch.no_grad()
def invert(
    backbone: Backbone, latents: torch.Tensor, conditioning: Conditioning, num_inference_steps: int
) -> torch.Tensor:
    """Go through the steps of the deterministic sampler backwards, without guidance.

    A step is `x' = own * x + predicted * prediction(x, t)`. Its inverse takes the prediction at x'
    in place of x: the more steps, the smaller the difference. A flow's steps are Euler's.

    Args:
        backbone: The model.
        latents: Of images, [images, channels, h, w].
        conditioning: Embeddings of their prompts, one row per image.
        num_inference_steps: Number of steps.

    Returns:
        The sampler's starting latents, float32, shaped as given.

    Raises:
        TastemakerError: They are not finite.

    References:
        Song et al., denoising diffusion implicit models, arXiv 2010.02502, section 4.3.
    """
    scheduler = backbone.deterministic_grid(num_inference_steps, latents.shape[1:])
    batch = SamplingBatch(
        conditioning, {}, (), num_inference_steps=num_inference_steps, guidance_scale=1.0
    )
    step = backbone.step(backbone.denoiser, scheduler, batch)
    latents = latents.float()
    zero, one = torch.zeros_like(latents[:1]), torch.ones_like(latents[:1])
    for timestep in scheduler.timesteps.flip(0):
        own = scheduler.step(zero, timestep, one, return_dict=False)[0]
        latents = latents + (latents - step(latents, timestep)) / own
    return require_finite(backbone.name, latents)
