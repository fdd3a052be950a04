"""Two steps to compare a training step with: the least there is, and the usual one."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.nn import functional

from tastemaker.backbones.lora.adapters import adapted
from tastemaker.profiling.timing import PartTimer
from tastemaker.storage.images import to_pixels
from tastemaker.training.batches import NoisyBatch, mean_square, residual
from tastemaker.training.preference.objective import FrozenCopy
from tastemaker.training.preference.trainer import PreferenceTrainer


class Floor:
    """Forward and backward pass of the policy alone, on a batch that stays on the device.

    Args:
        trainer: Whose policy, precision and batch are taken.
    """

    def __init__(self, trainer: PreferenceTrainer) -> None:
        self.trainer = trainer
        self.batch = trainer.batch(0)

    def step(self) -> None:
        """Do both passes and drop the gradient."""
        trainer = self.trainer
        with trainer.accelerator.autocast():
            left = residual(trainer.backbone, trainer.policy, self.batch, trainer.text_encoders)
        trainer.accelerator.backward(mean_square(left).mean())
        for parameter in trainer.state.weights.values():
            parameter.grad = None


class PlainStep:
    """A step of Diffusion-DPO as public scripts do it, with a trainer's own networks.

    Every step encodes its images and prompts, both in one batch, and runs reference and policy once
    each on all images; `disable_adapters` switches the reference on, the loss is read after each
    step. Images are decoded beforehand, which a script would do in worker processes.

    Args:
        trainer: Its model still has its encoders.
        rows: Pairs, of prompt, chosen and rejected picture.
    """

    def __init__(self, trainer: PreferenceTrainer, rows: Sequence[Mapping[str, Any]]) -> None:
        self.trainer = trainer
        self.backbone = trainer.backbone
        images = [row[side] for side in ("chosen", "rejected") for row in rows]
        self.pixels = to_pixels(images)
        self.prompts = [row["prompt"] for row in rows]
        self.cached = trainer.batch(0).conditioning
        self.beta = trainer.beta
        self.optimizer = torch.optim.AdamW(trainer.state.weights.values(), lr=1e-6)

    def step(self, timer: PartTimer | None = None) -> float:
        """Do one step.

        Args:
            timer: Takes the seconds of its parts; None: the device is not waited for.

        Returns:
            The loss.
        """
        part: Any = timer.part if timer else lambda _: contextlib.nullcontext()
        with timer.step() if timer else contextlib.nullcontext():
            with part("encode"):
                batch = self._encoded()
            with part("reference"), torch.no_grad():
                reference = self._reference(batch)
            with part("forward"):
                policy = self._errors(self.trainer.policy, batch, self.trainer.text_encoders)
            chosen, rejected = (policy - reference).chunk(2)
            loss = -functional.logsigmoid(-0.5 * self.beta * (chosen - rejected)).mean()
            with part("backward"):
                self.trainer.accelerator.backward(loss)
            with part("optimiser"):
                weights = list(self.trainer.state.weights.values())
                torch.nn.utils.clip_grad_norm_(weights, self.trainer.config.max_grad_norm)
                self.optimizer.step()
                self.optimizer.zero_grad()
            return loss.item()

    @torch.no_grad()
    def _encoded(self) -> NoisyBatch:
        backbone, trains = self.backbone, self.trainer.config.text_lora is not None
        mean, std = backbone.vae.encode(self.pixels)
        latents = mean + std * torch.randn_like(std)
        pairs, length = len(self.prompts), len(backbone.noise_schedule.alpha)
        noise = torch.randn_like(latents[:pairs]).repeat(2, 1, 1, 1)
        timesteps = torch.randint(length, (pairs,), device=latents.device).repeat(2)
        if trains:
            tokens = {
                name: torch.cat([value, value]).to(latents.device)
                for name, value in backbone.tokenize(self.prompts).items()
            }
            conditioning = self.cached
        else:
            embeddings = backbone.encode_prompts(self.prompts)
            twice = {name: torch.cat([value, value]) for name, value in embeddings.items()}
            tokens, conditioning = None, self.cached | twice
        return NoisyBatch(
            backbone.add_noise(latents, noise, timesteps),
            timesteps,
            backbone.target(latents, noise, timesteps),
            conditioning,
            tokens,
        )

    def _errors(
        self, denoiser: torch.nn.Module, batch: NoisyBatch, text: Sequence[torch.nn.Module]
    ) -> torch.Tensor:
        with self.trainer.accelerator.autocast():
            return mean_square(residual(self.backbone, denoiser, batch, text))

    def _reference(self, batch: NoisyBatch) -> torch.Tensor:
        trainer = self.trainer
        # A copy is gone once fixed draws are known; the policy takes the same time.
        if isinstance(trainer.reference, FrozenCopy) and trainer.fixed is None:
            other = trainer.reference
            return self._errors(other.denoiser, batch, other.text_encoders)
        networks: list[Any] = adapted(self.backbone)
        for network in networks:
            network.disable_adapters()
        try:
            return self._errors(trainer.policy, batch, trainer.text_encoders)
        finally:
            for network in networks:
                network.enable_adapters()
