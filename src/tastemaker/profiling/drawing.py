"""Speed of drawing: images per second from prompts to encoded files."""

from __future__ import annotations

from typing import Any

import torch

from tastemaker.backbones import Backbone, SamplingBatch, compile_blocks
from tastemaker.config.sections import SamplingConfig
from tastemaker.profiling.timing import interleaved, peak_bytes, spread
from tastemaker.storage.images import encode_png

STEPS = 4
"""Denoising steps that are timed, and counted as those of a whole schedule."""


def profile_drawing(
    backbone: Backbone, config: SamplingConfig, rounds: int, *, steps: int = STEPS
) -> dict[str, Any]:
    """Measure the drawing of one batch.

    Args:
        backbone: The model, with the configuration's precision and sampler.
        config: Batch size, steps, guidance, size and compilation.
        rounds: Times that it is timed, after one that is not.
        steps: Denoising steps that are timed; their time is scaled to the configuration's.

    Returns:
        Images per second, seconds of one denoising step and of decoding one batch, peak memory.
    """
    if config.torch_compile:
        compile_blocks(backbone.denoiser)
    timed, whole = min(steps, config.num_inference_steps), config.num_inference_steps
    images = config.batch_size
    prompts = [f"subject {i}" for i in range(images)]
    negative = backbone.encode_negative(config.negative_prompt)
    batch = SamplingBatch(
        backbone.encode_prompts(prompts),
        {name: value.repeat_interleave(images, 0) for name, value in negative.items()},
        range(images),
        num_inference_steps=timed,
        guidance_scale=backbone.guidance_scale(config.guidance_scale),
    )
    latents: list[torch.Tensor] = []

    def sample() -> None:
        latents[:] = [backbone.sample(batch, height=config.height, width=config.width)]

    def decode() -> None:
        for image in backbone.vae.decode_images(latents[0]):
            encode_png(image)

    def draw() -> None:
        sample()
        decode()

    peak = peak_bytes(backbone.device, draw)
    took = interleaved(backbone.device, {"sample": sample, "decode": decode}, rounds)
    step = [each / timed for each in took["sample"]]
    return {
        "images_per_second": spread(
            [images / (whole * each + end) for each, end in zip(step, took["decode"], strict=True)]
        ),
        "seconds": {"denoising_step": spread(step), "decode": spread(took["decode"])},
        "num_inference_steps": whole,
        "timed_steps": timed,
        "images": images,
        "peak_bytes": peak,
    }
