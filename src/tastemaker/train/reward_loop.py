"""The loop of AlignProp: draw images, score them, propagate the score back through the sampler."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import torch

from tastemaker.backbones import Drawing, load_backbone, stack
from tastemaker.errors import TastemakerError
from tastemaker.registry import SCORERS
from tastemaker.scorers.base import PixelScorer
from tastemaker.seeding import keyed_seed
from tastemaker.train.adapters import add_lora, trainable
from tastemaker.train.checkpoint import (
    TrainState,
    is_due,
    last_good,
    resume,
    save_checkpoint,
)
from tastemaker.train.credit import Credit
from tastemaker.train.metrics import MetricsFile
from tastemaker.train.numbering import examples_of, seed_dropout
from tastemaker.train.optimisation import accelerator_for, adamw, clip_gradient
from tastemaker.train.progress import steps_left
from tastemaker.train.saving import save_lora
from tastemaker.train.schedule import set_learning_rate
from tastemaker.training_sections import RewardTrainConfig


class RewardTrainer:
    """One training run: built from its configuration, resumed from its newest checkpoint.

    The main process alone has `metrics`, the file of what every step did.

    Args:
        config: The section `train`.
        prompts: Prompts to draw images of.
        output: Folder of checkpoints, metrics and the trained LoRA.

    Raises:
        TastemakerError: The scorer, the model or a target layer is wrong.
    """

    metrics: MetricsFile

    def __init__(self, config: RewardTrainConfig, prompts: Sequence[str], output: Path) -> None:
        self.config = config
        self.prompts = prompts
        self.output = output
        self.checkpoints = output / "checkpoints"
        self.accelerator = accelerator_for(config, output, splits=False)
        scorer: PixelScorer = SCORERS.bind(config.scorer.name, config.scorer.options)()
        self.scorer = scorer.to(self.accelerator.device, torch.float32)
        self.backbone = load_backbone(config.model, device=config.device, dtype=config.precision)
        self.backbone.fuse_adapters()
        self.embeddings = {text: self.backbone.encode_prompts([text]) for text in prompts}
        self.negative = self.backbone.encode_negative("")
        self.backbone.prepare_training()
        add_lora(self.backbone.denoiser, config.lora, config.seed)
        self.backbone.denoiser.train()
        self.state = self._prepare()

    def run(self) -> None:
        """Train to the last step, then save the LoRA.

        Raises:
            TastemakerError: Score or gradient is not finite; the last checkpoint is named.
        """
        start = resume(self.state, self.checkpoints)
        if self.accelerator.is_main_process:
            self.metrics = MetricsFile(self.output / "metrics.jsonl", start)
        for step, bar in steps_left(self.config, self.accelerator, start, "images"):
            row = self._step(step)
            self._after_step(step + 1, row)
            bar.set_postfix(reward=f"{row['reward']:.3f}")
        if self.accelerator.is_main_process:
            save_lora(self.backbone, self.config.model, self.output)
        self.accelerator.wait_for_everyone()

    def _prepare(self) -> TrainState:
        weights = trainable(self.backbone.denoiser)
        self.optimizer = self.accelerator.prepare(adamw(weights.values(), self.config))
        # accelerate wraps the optimizer; the state to keep is that of the one inside.
        inside = self.optimizer.optimizer
        credit = Credit(self.backbone.noise_schedule)
        return TrainState(weights, inside, {}, credit, self.accelerator.scaler)

    def _step(self, step: int) -> dict[str, float]:
        """One optimizer step over all its accumulated batches."""
        config = self.config
        rate = set_learning_rate(self.state.optimizer, step, config)
        parts = [self._forward_backward(step, part) for part in range(config.gradient_accumulation)]
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
        drawing = Drawing(
            stack([self.embeddings[text] for text in texts]),
            stack([self.negative] * len(texts)),
            [keyed_seed(config.seed, "reward image", number) for number in examples],
            num_inference_steps=config.num_inference_steps,
            guidance_scale=config.guidance_scale,
        )
        latents = self.backbone.sample_with_gradient(
            self.backbone.denoiser,
            drawing,
            keep=self._keep(step),
            checkpointing=config.gradient_checkpointing,
        )
        scores = self._scores(self.backbone.decode_pixels(latents), texts)
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

    def _after_step(self, done: int, row: dict[str, float]) -> None:
        main = self.accelerator.is_main_process
        if main:
            self.metrics.append(done, row)
        if is_due(self.config, done):
            save_checkpoint(self.state, self.checkpoints, done, write=main)
