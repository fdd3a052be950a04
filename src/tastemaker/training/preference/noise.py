"""Sources of the noise that pairs train on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from tastemaker.backbones import Backbone
from tastemaker.backbones.sampling_batch import starting_noise
from tastemaker.config.training import TrainConfig
from tastemaker.storage.encodings import Encoded
from tastemaker.storage.pairs import PairSet
from tastemaker.training.preference.data import PairBatches
from tastemaker.training.preference.inverted_noise import InvertedNoise
from tastemaker.training.preference.seeds import starting_seeds
from tastemaker.training.preference.trajectories import (
    Trajectories,
    TrajectoryBatches,
    read_trajectories,
)
from tastemaker.training.preference.verdicts import VerdictBatches

Source = torch.Tensor | Trajectories | InvertedNoise | None
"""Seeds of each pair's images, trajectories, inverted noise, or None for noise drawn anew."""


def noise_source(
    config: TrainConfig,
    pairs: str | Path | PairSet | Sequence[Mapping[str, Any]],
    backbone: Backbone,
) -> Source:
    """Read what `train.noise` takes noise from, where images need not be encoded for it.

    Args:
        config: Of the training.
        pairs: As a trainer takes them.
        backbone: The model, with its encoders.

    Raises:
        TastemakerError: The pairs do not have it.
    """
    if config.noise == "kept":
        return starting_seeds(pairs)
    return read_trajectories(pairs, backbone) if config.noise == "trajectory" else None


def batches_of(
    source: Source,
    data: Encoded,
    backbone: Backbone,
    device: torch.device,
    config: TrainConfig,
    samples_per_step: int,
    densities: Sequence[torch.Tensor | None],
) -> PairBatches:
    """Make the batches of a training on pairs, or on single verdicts.

    Args:
        source: From `noise_source` or `inverted_noise`.
        data: The encoded pairs.
        backbone: The model.
        device: Of the batches.
        config: Of the training.
        samples_per_step: Pairs per optimizer step, in all processes.
        densities: How often each timestep is drawn, one density per bucket of latents.
    """
    common = (data, backbone, device, config, samples_per_step, densities)
    if isinstance(source, Trajectories):
        return TrajectoryBatches(*common, trajectories=source)
    if config.verdicts is not None:
        return VerdictBatches(*common)
    if isinstance(source, InvertedNoise):
        return PairBatches(*common, lambda pairs, shape: source.of(pairs))
    if source is None:
        return PairBatches(*common)
    return PairBatches(
        *common, lambda pairs, shape: starting_noise(source[pairs].T.reshape(-1).tolist(), shape)
    )
