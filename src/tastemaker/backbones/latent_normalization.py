"""LAN: a policy's latents take, step by step, the channel statistics of its base's latents.

Preference training on photographs may drift in colour; this undoes the drift while images are
drawn. With any diffusers pipeline:

    lan = LatentNormalization()
    pipeline.disable_lora()
    pipeline(prompt, generator=seeded(), callback_on_step_end=lan.record)
    pipeline.enable_lora()
    pipeline(prompt, generator=seeded(), callback_on_step_end=lan.apply)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

StepEnd = Callable[[Any, int, Any, dict[str, torch.Tensor]], dict[str, torch.Tensor]]
"""`callback_on_step_end` of a diffusers pipeline."""

Moments = tuple[torch.Tensor, torch.Tensor]
"""Mean and standard deviation of each channel of each image, shaped to broadcast."""


def moments(latents: torch.Tensor) -> Moments:
    """Compute mean and standard deviation over the pixels of each channel, in float32.

    Args:
        latents: [images, channels, ...], or packed [images, tokens, channels] as FLUX has them.

    Returns:
        Both of the shape of `latents`, with 1 for the dimensions of pixels.
    """
    pixels = (1,) if latents.dim() == 3 else tuple(range(2, latents.dim()))
    std, mean = torch.std_mean(latents.float(), pixels, correction=0, keepdim=True)
    return mean, std


def adain(latents: torch.Tensor, target: Moments) -> torch.Tensor:
    """Give latents other moments: `std_target * (x - mean) / std + mean_target`.

    A constant channel, whose deviation is 0, becomes the target's mean.

    Args:
        latents: As of `moments`.
        target: Moments of as many images and channels.

    Returns:
        Latents, shape and precision as given.

    References:
        Huang and Belongie, adaptive instance normalisation, arXiv 1703.06868, equation 8.
    """
    mean, std = moments(latents)
    smallest = torch.finfo(std.dtype).tiny
    scaled = (latents.float() - mean) / std.clamp(min=smallest)
    return (target[1] * scaled + target[0]).to(latents.dtype)


class LatentNormalization:
    """AdaIN of each step's latents to those of the base, from the same noise and prompts.

    Both methods are `callback_on_step_end` of a diffusers pipeline: first `record` while the base
    samples, then `apply` while the policy does. It costs the base's sampling: twice the time.

    References:
        HG-DPO, arXiv 2405.20216, its alternative to statistics matching at inference. That the
        base's latents are those of its own trajectory is our reading.
    """

    def __init__(self) -> None:
        self.recorded: list[Moments] = []

    def record(
        self, pipeline: Any, step: int, timestep: Any, tensors: dict[str, torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        """Keep the moments of the base's latents."""
        self.recorded.append(moments(tensors["latents"]))
        return tensors

    def apply(
        self, pipeline: Any, step: int, timestep: Any, tensors: dict[str, torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        """Normalise the policy's latents to the moments that were kept at this step."""
        return {**tensors, "latents": adain(tensors["latents"], self.recorded[step])}

    def after(
        self,
        callback_on_step_end: StepEnd | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = (),
        **others: Any,
    ) -> dict[str, Any]:
        """Return arguments of a pipeline's call that `apply` after another callback.

        Args:
            callback_on_step_end: The other, or None.
            callback_on_step_end_tensor_inputs: Its tensors.
            **others: Arguments of the call that are left as they are.
        """

        def both(
            pipeline: Any, step: int, timestep: Any, tensors: dict[str, torch.Tensor]
        ) -> dict[str, torch.Tensor]:
            if callback_on_step_end is not None:
                tensors = callback_on_step_end(pipeline, step, timestep, tensors)
            return self.apply(pipeline, step, timestep, tensors)

        return {
            "callback_on_step_end": both,
            "callback_on_step_end_tensor_inputs": [*callback_on_step_end_tensor_inputs, "latents"],
        }
