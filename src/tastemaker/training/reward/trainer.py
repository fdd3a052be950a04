"""AlignProp: draw images, score them, propagate the score back through the sampler."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from tastemaker.backbones import SamplingBatch, compile_blocks, stack
from tastemaker.backbones.gradient_sampling import sample_with_gradient
from tastemaker.backbones.lora.adapters import add_lora
from tastemaker.config.training import RewardTrainConfig
from tastemaker.core.errors import TastemakerError
from tastemaker.core.registry import SCORERS
from tastemaker.core.seeding import keyed_seed
from tastemaker.scorers.base import PixelScorer
from tastemaker.training.batches import BatchLoss
from tastemaker.training.optimization import load_policy
from tastemaker.training.saving import save_lora
from tastemaker.training.trainer import Trainer


@dataclass(frozen=True)
class RewardBatch:
    """Images to draw.

    Attributes:
        prompts: One per image.
        drawing: Their embeddings, seeds and sampling options.
        keep: Last denoising steps that carry gradient.
    """

    prompts: Sequence[str]
    drawing: SamplingBatch
    keep: int


class RewardTrainer(Trainer[RewardTrainConfig, RewardBatch]):
    """A training on a scorer's gradient.

    Args:
        config: The section `train`.
        prompts: Prompts to draw images of.
        output: Folder of checkpoints, metrics and the trained LoRA.

    Raises:
        TastemakerError: The scorer, the model or a target layer is wrong.
    """

    unit = "images"
    shown = ("reward",)
    wrapped = False

    def __init__(self, config: RewardTrainConfig, prompts: Sequence[str], output: Path) -> None:
        super().__init__(config, output)
        self.remedy = (
            f"Lower train.learning_rate or keep, or look at the scorer {config.scorer.column!r}."
        )
        self.prompts = prompts
        scorer: PixelScorer = SCORERS.bind(config.scorer.name, config.scorer.options)()
        self.scorer = scorer.to(self.accelerator.device, torch.float32)
        self.backbone = load_policy(config)
        self.embeddings = {text: self.backbone.encode_prompts([text]) for text in prompts}
        self.negative = self.backbone.encode_negative("")
        self.backbone.prepare_training(config.dtype)
        add_lora(self.backbone.denoiser, config.lora, config.seed)
        self.backbone.denoiser.train()
        self.prepare()
        if config.torch_compile:
            compile_blocks(self.backbone.denoiser)

    def batch(self, step: int, part: int = 0) -> RewardBatch:
        """Choose prompts, noise and the number of steps that carry gradient.

        An image's prompt and noise depend on its number in the run alone, and all images of an
        optimizer step keep the graph of equally many steps: how they are cut into batches and
        spread over processes does not enter.
        """
        config, samples = self.config, self.samples(step, part)
        texts = [self._prompt(number) for number in samples]
        drawing = SamplingBatch(
            stack([self.embeddings[text] for text in texts]),
            stack([self.negative] * len(texts)),
            [keyed_seed(config.seed, "reward image", number) for number in samples],
            num_inference_steps=config.num_inference_steps,
            guidance_scale=config.guidance_scale,
        )
        return RewardBatch(texts, drawing, self._keep(step))

    def loss(self, batch: RewardBatch) -> BatchLoss:
        """Draw images and compute `loss = -reward_scale * mean(score)`."""
        latents = sample_with_gradient(
            self.backbone,
            self.policy,
            batch.drawing,
            keep=batch.keep,
            checkpointing=self.config.gradient_checkpointing,
        )
        reward = self._scores(self.backbone.vae.decode_pixels(latents), batch.prompts).mean()
        return BatchLoss(-self.config.reward_scale * reward, {"reward": reward.detach()})

    def _prompt(self, number: int) -> str:
        return self.prompts[keyed_seed(self.config.seed, "prompt", number) % len(self.prompts)]

    def _keep(self, step: int) -> int:
        """Number of the last denoising steps that carry gradient, the same in all processes."""
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
                f" {scores.requires_grad}; it must return one number per image, with its graph."
            )
        return scores

    def save_model(self) -> None:
        """Write the LoRA."""
        if self.main:
            save_lora(self.backbone, self.config.model, self.output)
