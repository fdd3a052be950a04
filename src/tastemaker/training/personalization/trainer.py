"""The loop of DreamBooth: the denoising loss on photographs of a subject, and on its class."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from tastemaker.backbones.lora.adapters import trainable
from tastemaker.backbones.lora.diffusers_file import name_base
from tastemaker.backbones.textual_inversion import save_token
from tastemaker.config.personalization import PersonalizeConfig
from tastemaker.core.errors import TastemakerError
from tastemaker.training.checkpoint import TrainState, last_good
from tastemaker.training.fsdp import join, prepare
from tastemaker.training.numbering import examples_of, seed_dropout
from tastemaker.training.optimization import adamw, clip_gradient, synced
from tastemaker.training.personalization.data import encode_subject, subject_batch
from tastemaker.training.personalization.parameters import (
    free_denoiser,
    free_text,
    personal_weights,
)
from tastemaker.training.preference.credit import Credit
from tastemaker.training.preference.reference import mean_square, residual
from tastemaker.training.saving import save_lora, save_whole
from tastemaker.training.schedule import set_learning_rate
from tastemaker.training.trainer import TrainingRun


class PersonalTrainer(TrainingRun[PersonalizeConfig]):
    """A training run on photographs of a subject.

    Args:
        config: The section `personalize`.
        photographs: Files that can be read.
        output: Folder of checkpoints, metrics and the trained model.

    Raises:
        TastemakerError: The model, a target layer, the new word or a class image is wrong.
    """

    unit = "images"

    def __init__(
        self, config: PersonalizeConfig, photographs: Sequence[Path], output: Path
    ) -> None:
        super().__init__(config, output)
        self.backbone = self._load(whole=config.method == "full")
        self.word = free_text(config, self.backbone)
        text_trains = any(trainable(encoder) for encoder in self.backbone.text_encoders)
        self.data = encode_subject(config, photographs, self.backbone, text_trains=text_trains)
        self.backbone.release_encoders(keep_text=text_trains)
        self.backbone.prepare_training()
        free_denoiser(config, self.backbone)
        self.state = self._prepare(text_trains)

    def _prepare(self, text_trains: bool) -> TrainState:
        """Hand networks and optimizer to accelerate; set `policy`, `text_encoders`, `optimizer`."""
        text = self.backbone.text_encoders if text_trains else []
        optimizer = adamw(self._groups(personal_weights(self.backbone, text)), self.config)
        self.policy, self.text_encoders, self.optimizer = prepare(
            self.accelerator, self.backbone.denoiser, text, optimizer
        )
        weights = personal_weights(self.backbone, text)
        return self._train_state(weights, {}, Credit(self.backbone.noise_schedule))

    def _groups(self, weights: dict[str, torch.nn.Parameter]) -> list[dict[str, Any]]:
        """The weights by learning rate: of the denoiser, the text encoders and a new word."""
        config = self.config
        words = {id(parameter) for parameter in self.word}
        text_rate = config.text_lora.learning_rate if config.text_lora else None
        groups: dict[float, list[torch.nn.Parameter]] = {}
        for name, parameter in weights.items():
            rate = config.learning_rate
            if config.token is not None and id(parameter) in words:
                rate = config.token.learning_rate
            elif name.startswith("text_encoder_"):
                rate = text_rate or rate
            groups.setdefault(rate / config.learning_rate, []).append(parameter)
        return [{"params": each, "rate": rate} for rate, each in groups.items()]

    def _step(self, step: int) -> dict[str, float]:
        config = self.config
        rate = set_learning_rate(self.state.optimizer, step, config)
        rows = []
        for part in range(config.gradient_accumulation_steps):
            last = part == config.gradient_accumulation_steps - 1
            with synced(self.accelerator, (self.policy, *self.text_encoders), last=last):
                rows.append(self._forward_backward(step, part))
        means = {
            key: self.accelerator.reduce(torch.stack([row[key] for row in rows]).mean(), "mean")
            for key in rows[0]
        }
        row = {key: value.item() for key, value in means.items()}
        if not math.isfinite(row["loss"]):
            raise TastemakerError(
                f"step {step + 1}: the loss is {row['loss']}. Lower learning_rate, or raise"
                f" precision to fp32. {last_good(self.checkpoints)}"
            )
        norm = clip_gradient(
            self.accelerator, self.state, config, step=step, checkpoints=self.checkpoints
        )
        self.optimizer.step()
        self.optimizer.zero_grad()
        return {**row, **norm, "learning_rate": rate}

    def _forward_backward(self, step: int, part: int) -> dict[str, torch.Tensor]:
        """Propagate `loss = mean(error of photographs) + weight * mean(error of class images)`."""
        config = self.config
        examples = examples_of(config, self.accelerator, step, part)
        seed_dropout(config, examples)
        batch = subject_batch(self.data, self.backbone, examples, seed=config.seed)
        with self.accelerator.autocast():
            residuals = residual(self.backbone, self.policy, batch, self.text_encoders)
            errors = mean_square(residuals)
        subject = errors[: len(examples)].mean()
        row = {"loss": subject, "errors/photographs": subject}
        if config.prior is not None:
            row["errors/class_images"] = errors[len(examples) :].mean()
            row["loss"] = subject + config.prior.weight * row["errors/class_images"]
        self.accelerator.backward(row["loss"])
        return {key: value.detach() for key, value in row.items()}

    def _shown(self, row: dict[str, float]) -> dict[str, str]:
        return {"loss": f"{row['loss']:.3f}"}

    def _save_model(self) -> None:
        config, output = self.config, self.output
        main = self.accelerator.is_main_process
        join(self.backbone.denoiser, keep=main)
        if main and config.method == "full":
            text_encoders = self.backbone.text_encoders if self.text_encoders else ()
            save_whole(config.model, output, self.backbone.denoiser, text_encoders)
        elif main and (config.method == "lora" or config.text_lora is not None):
            save_lora(self.backbone, config.model, output)
        if main and config.method != "full" and config.token is not None:
            save_token(self.backbone, output, config.identifier)
            name_base(config.model, output)
