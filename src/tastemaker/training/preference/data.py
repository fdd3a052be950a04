"""Batches of pairs: which pairs a step trains on, their latents and embeddings, their noise."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tastemaker.backbones import Backbone
from tastemaker.config.training import TrainConfig
from tastemaker.core.seeding import keyed_generator
from tastemaker.storage.encodings import Encoded
from tastemaker.storage.pairs import PairSet
from tastemaker.training.batches import NoisyBatch, bucketed_indices, moved, noisy_batch
from tastemaker.training.encoding import encode, encodings_key, kept_below
from tastemaker.training.encoding_plan import Examples


@dataclass(frozen=True)
class PairBatch(NoisyBatch):
    """Noisy images of pairs, the chosen first.

    Attributes:
        score_gap: Of each pair, shape [pairs].
        reference_errors: The reference's errors, shape [2 * pairs], where they are known.
    """

    score_gap: torch.Tensor = field(kw_only=True)
    reference_errors: torch.Tensor | None = field(default=None, kw_only=True)


@dataclass(frozen=True, eq=False)
class PairBatches:
    """Chooses pairs and adds noise, as configured.

    Attributes:
        data: The encoded pairs, of each the chosen image first.
        backbone: The model.
        device: Of the batches.
        config: Of the training.
        samples_per_step: Pairs per optimizer step, in all processes.
        densities: How often each timestep is drawn, one density per bucket of latents.
        own_noise: Function from pairs and the shape of latents to each image's own noise, the
            chosen first, [2 * pairs, channels, h, w]; None draws one noise per pair.
    """

    data: Encoded
    backbone: Backbone
    device: torch.device
    config: TrainConfig
    samples_per_step: int
    densities: Sequence[torch.Tensor | None] | None = None
    own_noise: Callable[[torch.Tensor, Sequence[int]], torch.Tensor] | None = None

    def pairs(self, step: int, samples: Sequence[int]) -> torch.Tensor:
        """Choose the pairs of some samples of a step: each epoch is a permutation.

        Args:
            step: Optimizer steps done before.
            samples: Their numbers in the run.

        Returns:
            Indices of pairs whose images have one size, shape [samples].
        """
        plan, available = self.config.curriculum, len(self.data)
        if plan is not None:
            every = plan.steps_per_chunk
            available = available_pairs(available, step, chunks=plan.chunks, every=every)
        members = bucket_members(self.data, available)
        sizes = tuple(len(each) for each in members)
        places = bucketed_indices(samples, sizes, self.samples_per_step, self.config.seed)
        return torch.tensor([int(members[bucket][index]) for bucket, index in places])

    def noisy(self, pairs: torch.Tensor, draws: Sequence[int]) -> PairBatch:
        """Add noise to pairs.

        Timestep, noise, posterior samples and dropout of the prompt are keyed by the draw alone.

        Args:
            pairs: Indices of pairs whose images have one size, shape [draws].
            draws: Numbers of the samples in the run, or of `FixedDraws`.

        Returns:
            The batch on the device.
        """
        data, config = self.data, self.config
        images, prompts, gaps = self.sides(pairs)
        noise = None
        if self.own_noise is not None:
            noise = self.own_noise(pairs, data.latents.shapes[int(data.latents.bucket(images[:1]))])
        if config.swapped:
            images = images.roll(len(pairs))
            noise = None if noise is None else noise.roll(len(pairs), 0)
        dropped = dropped_prompts(draws, config.proportion_empty_prompts, config.seed)
        rows = prompts * ~dropped.repeat(2)  # the empty prompt's row is the first
        conditioning, tokens = data.text(rows)
        batch = noisy_batch(
            self.backbone,
            self.device,
            data.latents,
            images,
            [keyed_generator(config.seed, "draw", draw) for draw in draws],
            conditioning | data.latents.conditioning(images),
            tokens,
            sample_posterior=config.sample_posterior,
            densities=self.densities,
            noise=noise,
        )
        return PairBatch(**vars(batch), score_gap=moved(gaps, self.device))

    def sides(self, pairs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return rows of images and prompts, the chosen ones first, and the pairs' score gaps."""
        data = self.data
        return data.images(pairs), data.prompts(pairs).repeat(2), data.gaps(pairs)


def dropped_prompts(draws: Sequence[int], share: float, seed: int) -> torch.Tensor:
    """Choose the samples that train with the empty prompt, which guidance needs in sampling.

    Args:
        draws: Numbers of the samples in the run.
        share: Probability of each, 0 to 1; 0.2 in the reference implementation of Diffusion-DPO.
        seed: The run's seed.

    Returns:
        Booleans, shape [draws].

    References:
        Ho and Salimans, classifier-free diffusion guidance, arXiv 2207.12598.
    """
    generators = [keyed_generator(seed, "prompt dropout", draw) for draw in draws]
    return torch.cat([torch.rand(1, generator=each) for each in generators]) < share


@functools.lru_cache(maxsize=1)  # it changes with the stages of a curriculum alone
def bucket_members(data: Encoded, available: int) -> list[Sequence[int] | torch.Tensor]:
    """Return the pairs of each bucket.

    Args:
        data: The encoded pairs.
        available: Of so many pairs with the widest gap; those of a curriculum come in this order.
    """
    if available == len(data) and len(data.latents.shapes) == 1:
        return [range(available)]
    pairs = torch.arange(len(data))
    if available < len(data):
        pairs = torch.tensor(data.examples["gap"]).argsort(descending=True, stable=True)[:available]
    chosen = data.examples["images"][:, 0].astype(np.int64)
    bucket = data.latents.bucket(torch.tensor(chosen)[pairs])
    return [pairs[bucket == number] for number in range(len(data.latents.shapes))]


def available_pairs(pairs: int, step: int, *, chunks: int, every: int) -> int:
    """Return how many of the pairs with the widest gap a step of a curriculum may draw.

    Args:
        pairs: Number of pairs.
        step: Optimizer step, from 0.
        chunks: Parts of the pairs.
        every: Steps until the next part is added.

    Returns:
        `ceil(pairs * k / chunks)` with `k = min(1 + step // every, chunks)`.

    Example:
        >>> [available_pairs(10, step, chunks=4, every=2) for step in range(8)]
        [3, 3, 5, 5, 8, 8, 10, 10]

    References:
        Curriculum-DPO, arXiv 2405.13637.
    """
    return -(-pairs * min(1 + step // every, chunks) // chunks)


def encoded_examples(
    examples: Examples, config: TrainConfig, backbone: Backbone, kept: Path | None
) -> Encoded:
    """Encode a training's examples.

    Args:
        examples: Pairs, or single verdicts.
        config: Of the training.
        backbone: The model with its encoders.
        kept: Folder of encodings, for later trainings too; None keeps them in memory.
    """
    posterior = config.sample_posterior
    folder = kept and kept / encodings_key(backbone, config.model, posterior)
    text = config.text_lora is not None
    return encode(examples, backbone, folder, posterior=posterior, text_trains=text)


def kept_in(pairs: Any, output: Path) -> Path | None:
    """Return the folder of what later trainings on the same pairs need not compute again.

    Args:
        pairs: As a trainer takes them.
        output: Of the training, for pairs on a disk that is not writable.

    Returns:
        None for pairs that are in no folder.
    """
    if not isinstance(pairs, str | Path | PairSet):
        return None
    return kept_below(pairs.folder if isinstance(pairs, PairSet) else Path(pairs), output)


def fingerprint(tensors: Mapping[str, torch.Tensor]) -> str:
    """Hash tensors with their names."""
    digest = hashlib.blake2b(digest_size=16)
    for name, value in sorted(tensors.items()):
        flat = value.detach().cpu().contiguous().reshape(-1)
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()
