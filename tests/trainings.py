"""Short trainings, and what they leave."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from tastemaker.backbones import Backbone
from tastemaker.backbones.lora.adapters import trainable
from tastemaker.config.training import TrainConfig
from tastemaker.training.preference.data import TrainingData
from tastemaker.training.preference.objective import PairBatch, pair_batch, pair_indices


def train_config(model: Path, **options: Any) -> TrainConfig:
    """A short training run on the CPU."""
    defaults = {"max_steps": 3, "batch_size": 4, "learning_rate": 1e-3, "report_to": None}
    return TrainConfig(model=str(model), device="cpu", **{**defaults, **options})


def rows(folder: Path) -> list[dict[str, float]]:
    """The metrics of a finished training run."""
    return [json.loads(line) for line in (folder / "metrics.jsonl").open()]


def batch_of(
    data: TrainingData,
    backbone: Backbone,
    draws: Sequence[int],
    *,
    seed: int,
    available: int | None = None,
    **options: Any,
) -> PairBatch:
    """Samples of a run by their numbers."""
    index = pair_indices(data, draws, seed=seed, available=available)
    return pair_batch(data, backbone, index, draws, seed=seed, **options)


def perturb(denoiser: torch.nn.Module) -> None:
    """Move the adapters away from zero, as training does."""
    generator = torch.Generator().manual_seed(3)
    for parameter in trainable(denoiser).values():
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator)
