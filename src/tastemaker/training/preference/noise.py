"""Sources of the noise that pairs train on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from tastemaker.backbones import Backbone
from tastemaker.config.training import TrainConfig
from tastemaker.storage.encodings import Encoded
from tastemaker.storage.pairs import PairSet
from tastemaker.training.preference.data import PairBatches
from tastemaker.training.preference.seeds import starting_seeds
from tastemaker.training.preference.trajectories import (
    Trajectories,
    TrajectoryBatches,
    read_trajectories,
)
from tastemaker.training.preference.verdicts import VerdictBatches

Source = torch.Tensor | Trajectories | None
"""Seeds of each pair's images, their trajectories, or None for noise that is drawn anew."""


def noise_source(
    config: TrainConfig,
    pairs: str | Path | PairSet | Sequence[Mapping[str, Any]],
    backbone: Backbone,
) -> Source:
    """Read what `train.noise` takes noise from.

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
        source: From `noise_source`.
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
    return PairBatches(*common, source)
