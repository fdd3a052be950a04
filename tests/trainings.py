"""Short trainings, and what they leave."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from tastemaker.backbones import Backbone
from tastemaker.backbones.lora.adapters import trainable
from tastemaker.config.training import TrainConfig
from tastemaker.storage.encodings import Encoded
from tastemaker.training.preference.data import PairBatch, PairBatches


def train_config(model: Path, **options: Any) -> TrainConfig:
    """A short training run on the CPU."""
    defaults = {"max_steps": 3, "batch_size": 4, "learning_rate": 1e-3, "report_to": None}
    return TrainConfig(model=str(model), device="cpu", **{**defaults, **options})


def rows(folder: Path) -> list[dict[str, float]]:
    """The metrics of a finished training run."""
    return [json.loads(line) for line in (folder / "metrics.jsonl").open()]


def batch_of(
    data: Encoded,
    backbone: Backbone,
    draws: Sequence[int],
    **options: Any,
) -> PairBatch:
    """Samples of the first step of a run, by their numbers."""
    config = TrainConfig(model="", **options)
    batches = PairBatches(data, backbone, backbone.device, config, len(draws))
    return batches.noisy(batches.pairs(0, draws), draws)


def perturb(denoiser: torch.nn.Module) -> None:
    """Move the adapters away from zero, as training does."""
    generator = torch.Generator().manual_seed(3)
    for parameter in trainable(denoiser).values():
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator)
