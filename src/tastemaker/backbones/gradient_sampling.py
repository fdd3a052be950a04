"""Sampling with a graph through its last steps, for reward back-propagation."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.checkpoint import checkpoint

from tastemaker.backbones.conditioning import Conditioning, stack
from tastemaker.backbones.sampling_batch import SamplingBatch

if TYPE_CHECKING:
    from tastemaker.backbones.base import Backbone

Predict = Callable[[torch.Tensor, torch.Tensor, Conditioning], torch.Tensor]
"""Noisy latents, timestep and conditioning in, the network's prediction out."""

Step = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""`x_t` and the timestep t in, `x` of the next timestep or a prediction out."""


def guided_prediction(predict: Predict, batch: SamplingBatch) -> Step:
    """Make a network's prediction with classifier-free guidance.

    `prediction = without + guidance_scale * (with - without)`, both from one forward pass. The
    network sees latents in the embeddings' precision.

    Args:
        predict: The network.
        batch: The images; without guidance it costs half.

    Returns:
        Function from latents and timestep, one for all or one per image, to the prediction in
        float32.
    """
    guided, scale, dtype = batch.guided, batch.guidance_scale, batch.dtype
    both = stack([batch.negative, batch.conditioning]) if guided else batch.conditioning

    def prediction(latents: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        if not guided:
            return predict(latents.to(dtype), timestep, both).float()
        times = torch.cat([timestep] * 2) if timestep.dim() else timestep
        without, given = predict(torch.cat([latents] * 2).to(dtype), times, both).float().chunk(2)
        return without + scale * (given - without)

    return prediction


def guided_step(predict: Predict, scheduler: Any, batch: SamplingBatch) -> Step:
    """Make a sampler's step with `guided_prediction`.

    The latents stay in float32 from step to step.

    Args:
        predict: The network.
        scheduler: A diffusers scheduler whose step is a function of prediction and latents alone.
        batch: The images.

    Returns:
        The step.
    """
    guided = guided_prediction(predict, batch)

    def step(latents: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        prediction = guided(latents, timestep)
        after: torch.Tensor = scheduler.step(prediction, timestep, latents, return_dict=False)[0]
        return after

    return step


def unroll(
    step: Step,
    noise: torch.Tensor,
    timesteps: torch.Tensor,
    *,
    keep: int,
    checkpointing: bool,
) -> torch.Tensor:
    """Take all steps of a sampler, the last `keep` of them with graph.

    The gradient is that of the last steps as a function of the weights, with the latents that
    enter them fixed; the steps before cost a forward pass and no memory.

    Args:
        step: One step of the sampler.
        noise: Latents at the first timestep.
        timesteps: From noise to image.
        keep: Steps with graph; 0 none, `len(timesteps)` or more all.
        checkpointing: Keep only the latents of a step with graph, and run its network again in the
            backward pass: memory for one step whatever `keep` is, for a third more time.

    Returns:
        The final latents.
    """
    cut = max(len(timesteps) - keep, 0)
    latents = noise
    with torch.no_grad():
        for timestep in timesteps[:cut]:
            latents = step(latents, timestep)
    for timestep in timesteps[cut:]:
        if checkpointing:
            latents = checkpoint(step, latents, timestep, use_reentrant=False)
        else:
            latents = step(latents, timestep)
    return latents


def sample_with_gradient(
    backbone: Backbone,
    denoiser: torch.nn.Module,
    batch: SamplingBatch,
    *,
    keep: int,
    height: int | None = None,
    width: int | None = None,
    checkpointing: bool = True,
) -> torch.Tensor:
    """Sample final latents by a deterministic sampler, with a graph through its last steps.

    The same latents as `Backbone.sample` with that sampler (DDIM for models of noise, v or x_0).

    Args:
        backbone: The model.
        denoiser: A denoiser of its family: its own, a wrapped one or a copy.
        batch: The images.
        keep: Last steps that carry a graph; the steps before count as constants.
        height: Pixels; None for the model's own.
        width: Pixels; None for the model's own.
        checkpointing: Recompute the kept steps in the backward pass instead of storing them.

    Returns:
        Latents, float32, [images, channels, h, w].

    References:
        Prabhudesai et al. (AlignProp), arXiv 2310.03739: truncation and checkpointing.
    """
    shape = backbone.latent_shape(height, width)
    scheduler = backbone.deterministic_grid(batch.num_inference_steps, shape)
    step = backbone.step(denoiser, scheduler, batch)
    noise = batch.noise(shape, backbone.device)
    return unroll(step, noise, scheduler.timesteps, keep=keep, checkpointing=checkpointing)
