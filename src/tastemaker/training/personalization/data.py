"""Photographs of a subject and images of its class: encoded, and drawn to batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from tastemaker.backbones import Backbone, Conditioning, select, stack
from tastemaker.backbones.latents import encode_row
from tastemaker.config.personalization import PersonalizeConfig
from tastemaker.core.errors import TastemakerError
from tastemaker.core.seeding import keyed_generator
from tastemaker.datasets.subjects import photograph
from tastemaker.storage.images import square, to_pixels
from tastemaker.storage.parquet import read_table
from tastemaker.storage.pool import Pool
from tastemaker.training.batches import Latents, NoisyBatch, noisy_batch
from tastemaker.training.order import pair_index


@dataclass(frozen=True)
class PersonalData:
    """Encoded photographs and class images, in memory.

    Attributes:
        latents: One row per image, photographs first.
        photographs: Number of photographs.
        prompt: Row of each image's prompt.
        prompts: Embeddings, one row per prompt.
        tokens: Input of the text encoders, one row per prompt, where they train.
    """

    latents: Latents
    photographs: int
    prompt: torch.Tensor
    prompts: Conditioning
    tokens: Conditioning | None

    @property
    def class_images(self) -> int:
        """Number of images of the class; 0 without prior preservation."""
        return len(self.prompt) - self.photographs


def encode_subject(
    config: PersonalizeConfig, files: Sequence[Path], backbone: Backbone, *, text_trains: bool
) -> PersonalData:
    """Encode photographs and class images, each alone, and their prompts.

    Args:
        config: Prompt, size, and the pool of class images.
        files: The photographs.
        backbone: The model, with its encoders.
        text_trains: Whether its text encoders train, and so read the prompts at every step.

    Returns:
        The data, on the CPU.

    Raises:
        TastemakerError: A class image is missing or corrupt, or of another size.
    """
    size = config.resolution or min(backbone.sides)
    backbone.latent_shape(size, size)
    encoded = [
        _photograph(file, size, backbone) for file in tqdm(files, desc="encode", unit="images")
    ]
    texts = [config.instance_prompt] * len(files)
    if config.prior is not None:
        for row in tqdm(_rows(Path(config.prior.pool)), desc="encode class", unit="images"):
            encoded.append(encode_row(backbone, row))
            texts.append(row["prompt"])
    shapes = [tuple(mean.shape) for mean, _ in encoded]
    other = [shape for shape in shapes if shape != shapes[0]]
    if other and config.prior is not None:
        raise TastemakerError(
            f"a class image of {config.prior.pool} has latents of shape {other[0]}, the photographs"
            f" {shapes[0]}; draw the class with height={size} width={size}, or set size."
        )
    unique = sorted(set(texts))
    embeddings = stack([backbone.encode_prompts([text]) for text in unique])
    means, stds = zip(*encoded, strict=True)
    return PersonalData(
        latents=Latents.of(means, stds),
        photographs=len(files),
        prompt=torch.tensor([unique.index(text) for text in texts]),
        prompts={name: value.float().cpu() for name, value in embeddings.items()},
        tokens=backbone.tokenize(unique) if text_trains else None,
    )


def subject_batch(
    data: PersonalData,
    backbone: Backbone,
    draws: Sequence[int],
    *,
    seed: int,
    densities: Sequence[torch.Tensor | None] | None = None,
) -> NoisyBatch:
    """Add noise to photographs, and to as many class images if there are any.

    Image, timestep, noise and posterior sample are keyed by the sample's number alone; photographs
    and class images share none of them.

    Args:
        data: Cached latents and embeddings.
        backbone: The model.
        draws: Numbers of the samples in the run.
        seed: The run's seed.
        densities: How often each timestep is drawn, one density per bucket of latents.

    Returns:
        Photographs first, then class images, on the model's device.
    """
    chosen = [pair_index(draw, data.photographs, seed) for draw in draws]
    generators = [keyed_generator(seed, "photograph", draw) for draw in draws]
    if data.class_images:
        chosen += [data.photographs + pair_index(draw, data.class_images, seed) for draw in draws]
        generators += [keyed_generator(seed, "class image", draw) for draw in draws]
    images = torch.tensor(chosen)
    rows = data.prompt[images]
    return noisy_batch(
        backbone,
        data.latents,
        images,
        generators,
        select(data.prompts, rows),
        data.tokens and select(data.tokens, rows),
        densities=densities,
    )


def _photograph(file: Path, size: int, backbone: Backbone) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation of the latents of the middle square, [channels, h, w]."""
    image = photograph(file)
    if min(image.size) < size:
        tqdm.write(
            f"enlarged: {file.name} has {image.width} x {image.height} pixels, fewer than"
            f" {size} x {size}; a larger photograph shows more of the subject"
        )
    mean, std = backbone.vae.encode(to_pixels([square(image, size)]))
    return mean[0].float().cpu(), std[0].float().cpu()


def _rows(folder: Path) -> Iterator[dict[str, Any]]:
    for shard in Pool(folder).shards():
        yield from read_table(shard).to_pylist()
