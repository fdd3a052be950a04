"""Trajectories of DDIM with eta 1, each of whose steps is a sample of a Gaussian."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from diffusers import DDIMScheduler
from diffusers.utils.torch_utils import randn_tensor

from tastemaker.backbones.gradient_sampling import guided_prediction
from tastemaker.backbones.sampling_batch import SamplingBatch, require_finite, starting_noise
from tastemaker.core.errors import TastemakerError

if TYPE_CHECKING:
    from tastemaker.backbones.base import Backbone


class GaussianSteps(NamedTuple):
    """Steps `x' = own * x + predicted * prediction + sigma * z` of DDIM with eta 1.

    Attributes:
        timesteps: Of x, from noise to image, shape [steps].
        own: Factor of x, shape [steps].
        predicted: Factor of the prediction.
        sigma: Standard deviation; 0 where the last step is exact.
    """

    timesteps: torch.Tensor
    own: torch.Tensor
    predicted: torch.Tensor
    sigma: torch.Tensor


def gaussian_steps(
    backbone: Backbone, num_inference_steps: int, shape: Sequence[int]
) -> GaussianSteps:
    """Work out the steps of DDIM with eta 1 on a model's noise schedule.

    Args:
        backbone: The model; it predicts noise, v or x_0.
        num_inference_steps: Number of steps.
        shape: Of an image's latents.

    Returns:
        The steps, on the CPU.

    Raises:
        TastemakerError: The family is sampled without noise.
    """
    scheduler: Any = backbone.deterministic_grid(num_inference_steps, shape)
    if not isinstance(scheduler, DDIMScheduler):
        raise TastemakerError(
            f"{backbone.name} is a flow, whose steps draw no noise; trajectories are DDIM's. Take a"
            " model of noise, v or x_0."
        )
    timesteps = scheduler.timesteps.cpu()
    zero, one = torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)

    def factors(prediction: torch.Tensor, x: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        each = [scheduler.step(prediction, t, x, eta=1.0, variance_noise=z)[0] for t in timesteps]
        return torch.cat(each).float()

    # A step is linear in x, prediction and noise.
    return GaussianSteps(
        timesteps, factors(zero, one, zero), factors(one, zero, zero), factors(zero, zero, one)
    )


@torch.no_grad()
def sample_trajectories(
    backbone: Backbone,
    batch: SamplingBatch,
    starts: Sequence[int],
    *,
    height: int | None = None,
    width: int | None = None,
) -> torch.Tensor:
    """Sample with DDIM and eta 1, and keep the latents of every step.

    They are rounded to float16 at each step, so that the next one is a sample of the Gaussian
    around what is kept.

    Args:
        backbone: The model.
        batch: The images; their seeds are those of the steps' noise.
        starts: Seeds of the starting noise, one per image.
        height: Pixels; None for the model's own.
        width: Pixels; None for the model's own.

    Returns:
        Latents from noise to image, float16, [images, steps + 1, channels, h, w].

    Raises:
        TastemakerError: The family is sampled without noise, or latents are not finite.
    """
    shape = backbone.latent_shape(height, width)
    steps = gaussian_steps(backbone, batch.num_inference_steps, shape)
    predict = guided_prediction(partial(backbone.predict, backbone.denoiser), batch)
    path = [starting_noise(starts, shape).to(backbone.device).half()]
    generators = batch.generators()
    for timestep, own, predicted, sigma in zip(*steps, strict=True):
        latents = path[-1].float()
        noise = randn_tensor(latents.shape, generator=generators, device=latents.device)
        mean = own * latents + predicted * predict(latents, timestep.to(latents.device))
        path.append((mean + sigma * noise).half())
    return require_finite(backbone.name, torch.stack(path, 1))
