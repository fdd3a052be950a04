"""The loop of AlignProp: draw images, score them, propagate the score back through the sampler."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import torch

from tastemaker.backbones import SamplingBatch, stack
from tastemaker.backbones.gradient_sampling import sample_with_gradient
from tastemaker.backbones.lora.adapters import add_lora, trainable
from tastemaker.config.training import RewardTrainConfig
from tastemaker.core.errors import TastemakerError
from tastemaker.core.registry import SCORERS
from tastemaker.core.seeding import keyed_seed
from tastemaker.scorers.base import PixelScorer
from tastemaker.training.checkpoint import TrainState, last_good
from tastemaker.training.numbering import examples_of, seed_dropout
from tastemaker.training.optimization import adamw, clip_gradient
from tastemaker.training.preference.credit import Credit
from tastemaker.training.saving import save_lora
from tastemaker.training.schedule import set_learning_rate
from tastemaker.training.trainer import TrainingRun


class RewardTrainer(TrainingRun[RewardTrainConfig]):
    """A training run on a scorer's gradient.

    Args:
        config: The section `train`.
        prompts: Prompts to draw images of.
        output: Folder of checkpoints, metrics and the trained LoRA.

    Raises:
        TastemakerError: The scorer, the model or a target layer is wrong.
    """

    unit = "images"

    def __init__(self, config: RewardTrainConfig, prompts: Sequence[str], output: Path) -> None:
        super().__init__(config, output, splits=False)
        self.prompts = prompts
        scorer: PixelScorer = SCORERS.bind(config.scorer.name, config.scorer.options)()
        self.scorer = scorer.to(self.accelerator.device, torch.float32)
        self.backbone = self._load()
        self.embeddings = {text: self.backbone.encode_prompts([text]) for text in prompts}
        self.negative = self.backbone.encode_negative("")
        self.backbone.prepare_training()
        add_lora(self.backbone.denoiser, config.lora, config.seed)
        self.backbone.denoiser.train()
        self.state = self._prepare()

    def _prepare(self) -> TrainState:
        weights = trainable(self.backbone.denoiser)
        self.optimizer = self.accelerator.prepare(adamw(weights.values(), self.config))
        return self._train_state(weights, {}, Credit(self.backbone.noise_schedule))

    def _step(self, step: int) -> dict[str, float]:
        config = self.config
        rate = set_learning_rate(self.state.optimizer, step, config)
        parts = [
            self._forward_backward(step, part) for part in range(config.gradient_accumulation_steps)
        ]
        reward = self.accelerator.reduce(torch.stack(parts).mean(), "mean").item()
        if not math.isfinite(reward):
            raise TastemakerError(
                f"step {step + 1}: the mean score is {reward}. Lower train.learning_rate, or look"
                f" at the scorer {config.scorer.column!r}. {last_good(self.checkpoints)}"
            )
        norm = self._clip_and_update(step)
        loss = -config.reward_scale * reward
        return {"loss": loss, "reward": reward, **norm, "learning_rate": rate}

    def _forward_backward(self, step: int, part: int) -> torch.Tensor:
        """Draw a batch and propagate `loss = -reward_scale * mean(score)`; return the mean score.

        An image's prompt and noise depend on its number in the run alone, and all images of an
        optimizer step keep the graph of equally many steps: how they are cut into batches and
        spread over processes does not enter.
        """
        config = self.config
        examples = examples_of(config, self.accelerator, step, part)
        seed_dropout(config, examples)
        texts = [self._prompt(number) for number in examples]
        drawing = SamplingBatch(
            stack([self.embeddings[text] for text in texts]),
            stack([self.negative] * len(texts)),
            [keyed_seed(config.seed, "reward image", number) for number in examples],
            num_inference_steps=config.num_inference_steps,
            guidance_scale=config.guidance_scale,
        )
        latents = sample_with_gradient(
            self.backbone,
            self.backbone.denoiser,
            drawing,
            keep=self._keep(step),
            checkpointing=config.gradient_checkpointing,
        )
        scores = self._scores(self.backbone.vae.decode_pixels(latents), texts)
        self.accelerator.backward(-config.reward_scale * scores.mean())
        return scores.detach().mean()

    def _prompt(self, number: int) -> str:
        return self.prompts[keyed_seed(self.config.seed, "prompt", number) % len(self.prompts)]

    def _keep(self, step: int) -> int:
        """How many of the last denoising steps carry gradient, the same in all processes."""
        config = self.config
        if not config.random_keep:
            return config.keep
        return 1 + keyed_seed(config.seed, "keep", step) % config.keep

    def _scores(self, pixels: torch.Tensor, texts: Sequence[str]) -> torch.Tensor:
        scores = self.scorer.score_pixels(pixels, texts)
        if scores.shape != (len(texts),) or not scores.requires_grad:
            raise TastemakerError(
                f"scorer {self.config.scorer.column!r}: score_pixels returned shape"
                f" {tuple(scores.shape)} for {len(texts)} images, requires_grad"
                f" {scores.requires_grad}; it must return one number an image, with its graph."
            )
        return scores

    def _clip_and_update(self, step: int) -> dict[str, float]:
        """Average over processes, clip, step; return the norm before clipping, where finite."""
        for parameter in self.state.weights.values():
            # By hand: a wrapper that does it expects one forward pass a backward pass.
            parameter.grad = self.accelerator.reduce(parameter.grad, "mean")
        clipped = clip_gradient(
            self.accelerator,
            self.state,
            self.config,
            step=step,
            checkpoints=self.checkpoints,
            lower="learning_rate or keep",
        )
        self.optimizer.step()
        self.optimizer.zero_grad()
        return clipped

    def _shown(self, row: dict[str, float]) -> dict[str, str]:
        return {"reward": f"{row['reward']:.3f}"}

    def _save_model(self) -> None:
        if self.accelerator.is_main_process:
            save_lora(self.backbone, self.config.model, self.output)
