"""Images of several sizes: a bucket a size, and an optimizer step's examples of one bucket."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from tastemaker.core.seeding import keyed_generator


@dataclass(frozen=True)
class Latents:
    """Posteriors of images, in the units that the denoiser sees.

    Attributes:
        mean: One tensor a bucket, each [images, channels, h, w].
        std: The same shapes; zero where the model drew the latents itself.
        bucket: Of each image.
        row: Of each image in its bucket.
    """

    mean: tuple[torch.Tensor, ...]
    std: tuple[torch.Tensor, ...]
    bucket: torch.Tensor
    row: torch.Tensor

    @classmethod
    def of(cls, means: Sequence[torch.Tensor], stds: Sequence[torch.Tensor]) -> Latents:
        """Put images into buckets by their shape.

        Args:
            means: One an image, [channels, h, w].
            stds: The same.

        Returns:
            The buckets in the order of their shapes.
        """
        shapes = sorted({tuple(each.shape) for each in means})
        members = [
            [i for i, each in enumerate(means) if tuple(each.shape) == shape] for shape in shapes
        ]
        bucket, row = (torch.zeros(len(means), dtype=torch.long) for _ in range(2))
        for number, images in enumerate(members):
            bucket[images] = number
            row[images] = torch.arange(len(images))
        return cls(
            tuple(torch.stack([means[i] for i in images]) for images in members),
            tuple(torch.stack([stds[i] for i in images]) for images in members),
            bucket,
            row,
        )

    def take(self, images: torch.Tensor | Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and standard deviation of images of one bucket, [images, channels, h, w]."""
        index = torch.as_tensor(images, dtype=torch.long)
        number, rows = int(self.bucket[index[0]]), self.row[index]
        return self.mean[number][rows].float(), self.std[number][rows].float()

    def tensors(self) -> dict[str, torch.Tensor]:
        """As a file holds them."""
        means = {f"mean.{number}": each for number, each in enumerate(self.mean)}
        stds = {f"std.{number}": each for number, each in enumerate(self.std)}
        return {"bucket": self.bucket, "row": self.row, **means, **stds}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, torch.Tensor]) -> Latents:
        """From what `tensors` returned."""
        numbers = range(int(tensors["bucket"].max()) + 1)
        return cls(
            tuple(tensors[f"mean.{number}"] for number in numbers),
            tuple(tensors[f"std.{number}"] for number in numbers),
            tensors["bucket"],
            tensors["row"],
        )


def pair_index(draw: int, pairs: int, seed: int) -> int:
    """Return which pair the run's `draw`-th example is: each epoch a permutation of its own.

    Args:
        draw: Position in the run, from 0.
        pairs: Number of pairs.
        seed: The run's seed.

    Returns:
        An index below `pairs`.
    """
    epoch, position = divmod(draw, pairs)
    return int(_permutation(pairs, seed, epoch)[position])


def bucketed_indices(
    draws: Sequence[int], buckets: tuple[int, ...], step: int, seed: int
) -> list[int]:
    """Return which pairs examples are, so that those of an optimizer step share a bucket.

    Each epoch shuffles every bucket, cuts it into steps, the last filled up from the bucket's
    beginning, and shuffles the steps. How a step is cut into batches does not enter.

    Args:
        draws: Positions in the run, from 0.
        buckets: Of each pair; where there is one, this is `pair_index`.
        step: Examples per optimizer step, in all processes.
        seed: The run's seed.

    Returns:
        Indices below `len(buckets)`.
    """
    if len(set(buckets)) == 1:
        return [pair_index(draw, len(buckets), seed) for draw in draws]
    length = len(_epoch(buckets, step, seed, 0))
    places = [divmod(draw, length) for draw in draws]
    return [_epoch(buckets, step, seed, epoch)[position] for epoch, position in places]


@functools.lru_cache(maxsize=2)
def _permutation(pairs: int, seed: int, epoch: int) -> torch.Tensor:
    return torch.randperm(pairs, generator=keyed_generator(seed, "order", epoch))


@functools.lru_cache(maxsize=2)
def _epoch(buckets: tuple[int, ...], step: int, seed: int, epoch: int) -> list[int]:
    steps: list[list[int]] = []
    for bucket in sorted(set(buckets)):
        members = [pair for pair, each in enumerate(buckets) if each == bucket]
        generator = keyed_generator(seed, "order", epoch, bucket)
        order = torch.randperm(len(members), generator=generator).tolist()
        short = -len(order) % step
        filled = [members[i] for i in order + [order[i % len(order)] for i in range(short)]]
        steps += [filled[i : i + step] for i in range(0, len(filled), step)]
    generator = keyed_generator(seed, "steps", epoch)
    places = torch.randperm(len(steps), generator=generator).tolist()
    return [pair for place in places for pair in steps[place]]
