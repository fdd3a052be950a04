"""Disk that the encodings of a training take, worked out on networks without weights."""

from __future__ import annotations

import math

import torch

from tastemaker.backbones.meta_device import load_skeleton
from tastemaker.config.sections import GenerateConfig, Section, sections_of
from tastemaker.config.training import TrainConfig
from tastemaker.datasets.prompts.sources import load_prompts

CHECKSUM_BYTES = 8


def bytes_per_row(
    config: TrainConfig, size: tuple[int | None, int | None], *, kept: bool
) -> tuple[int, int]:
    """Compute what an encoded image and an encoded prompt take on disk.

    `image = c h w b (1 + s)` for latents of c x h x w numbers of b bytes, s = 1 where the posterior
    is sampled and 0 elsewhere; for latents that the pool keeps `4 c h w`. A prompt takes its
    embeddings in the encoders' precision, padding included, which denoisers read, and its tokens.

    Args:
        config: The training.
        size: Height and width of the images in pixels; None for the model's own.
        kept: Whether the pool keeps latents.

    Returns:
        Bytes per image and per prompt, checksums included.
    """
    backbone = load_skeleton(config.model, "fp32" if config.method == "full" else config.dtype)
    shape = backbone.latent_shape(*size)
    width = backbone.vae.network.dtype.itemsize * (2 if config.sample_posterior else 1)
    with torch.device("meta"):
        encoded = {**backbone.encode_prompts(["a prompt"]), **backbone.tokenize(["a prompt"])}
        further = backbone.image_conditioning({}, torch.empty(shape))
    image = math.prod(shape) * (4 if kept else width) + _bytes(further)
    return image + CHECKSUM_BYTES, _bytes(encoded) + CHECKSUM_BYTES


def encodings(config: Section, size: tuple[int | None, int | None]) -> list[str]:
    """Say what the encodings of a run's training take on disk.

    Args:
        config: The run.
        size: Height and width of the training images.

    Returns:
        One line; none where nothing is encoded to disk.
    """
    found = dict(sections_of(config))
    train = next((each for each in found.values() if isinstance(each, TrainConfig)), None)
    if train is None or train.cache == "none":
        return []
    drawn = next((each for each in found.values() if isinstance(each, GenerateConfig)), None)
    image, prompt = bytes_per_row(train, size, kept=drawn is not None and drawn.keep_latents)
    line = f"Encodings on disk: {image / 1e3:,.1f} kB per image, {prompt / 1e3:,.1f} kB per prompt"
    if drawn is None or drawn.prompts is None:
        return [f"{line}."]
    prompts = len(load_prompts(drawn.prompts))
    images = prompts * drawn.num_candidates
    total = (images * image + prompts * prompt) / 1e6
    return [f"{line}; at most {images:,} images and {prompts:,} prompts, {total:,.1f} MB."]


def _bytes(tensors: dict[str, torch.Tensor]) -> int:
    return sum(each.numel() * each.itemsize for each in tensors.values())
