"""Photographs of a subject and images of its class: encoded, and drawn to batches."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from tastemaker.backbones import Backbone
from tastemaker.config.personalization import PersonalizeConfig
from tastemaker.core.content_hash import file_content
from tastemaker.core.errors import TastemakerError
from tastemaker.core.seeding import keyed_generator
from tastemaker.datasets.subjects import captioned, photograph
from tastemaker.storage.encodings import Encoded
from tastemaker.storage.images import encode_png, square
from tastemaker.storage.parquet import read_table
from tastemaker.storage.pool import Pool
from tastemaker.training.batches import NoisyBatch, noisy_batch, pair_index
from tastemaker.training.encoding import encode
from tastemaker.training.warnings import warn_of_sizes


class SubjectImages:
    """Examples of one image each: photographs under their prompts, then class images.

    Args:
        config: Prompt, and the pool of class images.
        files: The photographs.
        size: Side of the middle square that is taken of each, scaled, in pixels.
    """

    def __init__(self, config: PersonalizeConfig, files: Sequence[Path], size: int) -> None:
        self.files, self.size = files, size
        self.prompts = [captioned(file, config.instance_prompt, config.subject) for file in files]
        self.shards = [] if config.prior is None else Pool(Path(config.prior.pool)).shards()
        self._table = functools.lru_cache(maxsize=1)(read_table)

    def identity(self) -> Any:
        """Return prompts, size, and the contents of photographs and class images."""
        files = [file_content(file) for file in (*self.files, *self.shards)]
        return [self.prompts, self.size, len(self.files), files]

    def rows(self) -> Iterator[tuple[tuple[str, ...], str, float]]:
        """Yield id and prompt of each image."""
        for source in range(len(self.files)):
            yield (self.ids(source)[0],), self.prompts[source], 0.0
        for shard in self.shards:
            for row in read_table(shard, ("candidate_id", "prompt")).to_pylist():
                yield (row["candidate_id"],), row["prompt"], 0.0

    def sources(self) -> int:
        """Return the number of photographs and of shards of class images."""
        return len(self.files) + len(self.shards)

    def ids(self, source: int) -> Sequence[str]:
        """Return the ids of a photograph, or of a shard."""
        if source < len(self.files):
            return [f"photograph {self.files[source].name}"]
        names: list[str] = self._shard(source)["candidate_id"].to_pylist()
        return names

    def image(self, source: int, place: int) -> dict[str, Any]:
        """Read an image."""
        if source < len(self.files):
            file = self.files[source]
            picture = encode_png(square(photograph(file), self.size))
            return {"candidate_id": file.name, "image": {"bytes": picture}}
        (row,) = self._shard(source).slice(place, 1).to_pylist()
        return dict(row)

    def absent(self, number: int, first: str) -> TastemakerError:
        """Return the error for images that went while they were read."""
        return TastemakerError(f"{number} images are missing (first: {first}); put them back.")

    def _shard(self, source: int) -> Any:
        return self._table(self.shards[source - len(self.files)])


@dataclass(frozen=True)
class PersonalData:
    """Encoded photographs and class images.

    Attributes:
        encoded: One example per image, photographs first.
        photographs: Number of photographs.
    """

    encoded: Encoded
    photographs: int

    @property
    def class_images(self) -> int:
        """Number of images of the class; 0 without prior preservation."""
        return len(self.encoded) - self.photographs


def encode_subject(
    config: PersonalizeConfig,
    files: Sequence[Path],
    backbone: Backbone,
    folder: Path | None = None,
    *,
    text_trains: bool,
) -> PersonalData:
    """Encode photographs and class images, and their prompts.

    Args:
        config: Prompt, size, and the pool of class images.
        files: The photographs.
        backbone: The model, with its encoders.
        folder: Where encodings are kept; None keeps them in memory.
        text_trains: Whether its text encoders train, and so read the prompts at every step.

    Returns:
        The data, on the CPU.

    Raises:
        TastemakerError: A class image is missing or corrupt, or of another size.
    """
    size = config.resolution or min(backbone.sides)
    shape = backbone.latent_shape(size, size)
    warn_of_sizes(backbone, [shape])
    for file in files:
        _warn_of_enlarging(file, size)
    encoded = encode(SubjectImages(config, files, size), backbone, folder, text_trains=text_trains)
    other = [each for each in encoded.latents.shapes if each != shape]
    if other and config.prior is not None:
        raise TastemakerError(
            f"a class image of {config.prior.pool} has latents of shape {other[0]}, the photographs"
            f" {shape}; draw the class with height={size} width={size}, or set size."
        )
    return PersonalData(encoded, len(files))


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
    encoded, examples = data.encoded, torch.tensor(chosen)
    return noisy_batch(
        backbone,
        backbone.device,
        encoded.latents,
        encoded.images(examples),
        generators,
        *encoded.text(encoded.prompts(examples)),
        densities=densities,
    )


def _warn_of_enlarging(file: Path, size: int) -> None:
    image = photograph(file)
    if min(image.size) < size:
        tqdm.write(
            f"enlarged: {file.name} has {image.width} x {image.height} pixels, fewer than"
            f" {size} x {size}; a larger photograph shows more of the subject"
        )
