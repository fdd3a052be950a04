"""The micro-batches of a training on pairs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from tastemaker.backbones import Backbone
from tastemaker.config.training import TrainConfig
from tastemaker.training.preference.data import TrainingData, available_pairs
from tastemaker.training.preference.fixed_draws import FixedDraws
from tastemaker.training.preference.objective import PairBatch, pair_batch, pair_indices


@dataclass(frozen=True)
class PairBatches:
    """Chooses pairs and draws, and adds noise, as configured.

    Attributes:
        data: The encoded pairs.
        backbone: The model.
        config: Of the training.
        densities: How often each timestep is drawn, one density per bucket of latents.
        samples_per_step: Pairs per optimizer step, in all processes.
        fixed: Of `reference_draws`; None: every sample has a draw of its own.
    """

    data: TrainingData
    backbone: Backbone
    config: TrainConfig
    densities: Sequence[torch.Tensor | None]
    samples_per_step: int
    fixed: FixedDraws | None = None

    def pairs(self, step: int, samples: Sequence[int]) -> torch.Tensor:
        """Return the pairs of samples of a step, shape [samples]."""
        plan, available = self.config.curriculum, None
        if plan is not None:
            pairs, every = len(self.data), plan.steps_per_chunk
            available = available_pairs(pairs, step, chunks=plan.chunks, every=every)
        return pair_indices(
            self.data,
            samples,
            seed=self.config.seed,
            step=self.samples_per_step,
            available=available,
        )

    def draws(self, pairs: torch.Tensor, samples: Sequence[int]) -> Sequence[int]:
        """Return the numbers of the draws of samples and their pairs."""
        return samples if self.fixed is None else self.fixed.numbers(pairs, samples)

    def noisy(self, pairs: torch.Tensor, draws: Sequence[int]) -> PairBatch:
        """Add noise to pairs."""
        config = self.config
        return pair_batch(
            self.data,
            self.backbone,
            pairs,
            draws,
            seed=config.seed,
            sample_posterior=config.sample_posterior,
            proportion_empty_prompts=config.proportion_empty_prompts,
            densities=self.densities,
        )
