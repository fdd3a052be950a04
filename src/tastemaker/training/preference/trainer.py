"""Preference optimisation: the step on pairs, and its guards."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from tqdm import tqdm

from tastemaker.config.training import TrainConfig
from tastemaker.core.errors import TastemakerError
from tastemaker.storage.pairs import PairSet
from tastemaker.training.checkpoint import TrainState, last_good
from tastemaker.training.fsdp import join, prepare, split
from tastemaker.training.numbering import examples_of, seed_dropout
from tastemaker.training.optimization import adamw, clip_gradient, synced
from tastemaker.training.preference.data import (
    TrainingData,
    available_pairs,
    cache_data,
    noisy_batch,
)
from tastemaker.training.preference.diagnostics import CreditDiary, observe
from tastemaker.training.preference.guards import DivergenceWatch
from tastemaker.training.preference.objective import (
    DenoisingErrors,
    credited,
    errors_of,
    matching,
    penalised,
    residuals_of,
    step_metrics,
)
from tastemaker.training.preference.parameters import (
    add_text_adapters,
    make_trainable,
    parameter_groups,
    weights,
)
from tastemaker.training.preference.reference import FrozenCopy
from tastemaker.training.preference.terms import build_credit, weighted_losses
from tastemaker.training.preference.validation import ValidationSheets
from tastemaker.training.saving import save_lora, save_whole
from tastemaker.training.schedule import set_learning_rate
from tastemaker.training.trainer import TrainingRun


@dataclass(frozen=True)
class Seen:
    """What one batch of an optimizer step leaves behind, without graph.

    Attributes:
        metrics: Scalars.
        timesteps: Shape [pairs].
        errors: Of the four branches, shape [4, pairs].
        observed: From `observe`, one column a pair.
    """

    metrics: dict[str, torch.Tensor]
    timesteps: torch.Tensor
    errors: torch.Tensor
    observed: torch.Tensor


class Trainer(TrainingRun[TrainConfig]):
    """A training run on pairs.

    The main process alone has `diary`, the file of where the loss put its weight.

    Args:
        config: The section `train`.
        pairs: Pairs to train on.
        output: Folder of checkpoints, metrics and the trained model.

    Raises:
        TastemakerError: The model, a target layer or an image is wrong.
    """

    unit = "pairs"
    diary: CreditDiary

    def __init__(self, config: TrainConfig, pairs: PairSet, output: Path) -> None:
        super().__init__(config, output, config.report_to)
        self.backbone = self._load(whole=config.method == "full")
        add_text_adapters(config, self.backbone)
        self.data = self._cache(pairs)
        self.sheets = self._sheets()
        if self.sheets is None:
            self.backbone.release_encoders(keep_text=config.text_lora is not None)
        self.backbone.prepare_training()
        self.reference = make_trainable(config, self.backbone)
        self.losses = weighted_losses(config)
        self.credit = build_credit(config, self.backbone)
        self.watch = DivergenceWatch()
        self.beta = float(config.loss.options.get("beta", 1.0))
        self.state = self._prepare()

    def _begin(self, start: int) -> None:
        super()._begin(start)
        if self.accelerator.is_main_process:
            self.diary = CreditDiary(
                self.output, self.credit, steps=self.config.max_steps, start=start
            )
        if self.config.report_to:
            self.accelerator.init_trackers("logs")

    def _shown(self, row: dict[str, float]) -> dict[str, str]:
        return {"acc": f"{row['rewards/accuracies']:.2f}", "loss": f"{row['loss']:.3f}"}

    def _cache(self, pairs: PairSet) -> TrainingData:
        config = self.config
        with self.accelerator.main_process_first():
            data = cache_data(pairs, self.backbone, self.output / "cache.safetensors")
        if config.text_lora is not None:
            return data.with_tokens(self.backbone)
        return data

    def _sheets(self) -> ValidationSheets | None:
        config = self.config
        if not config.validation.steps:
            return None
        folder = self.output / "validation"
        return ValidationSheets(config.validation, self.backbone, folder, config.seed)

    def _prepare(self) -> TrainState:
        """Hand networks and optimizer to accelerate; set `policy`, `text_encoders`, `optimizer`."""
        config, backbone = self.config, self.backbone
        optimizer = adamw(parameter_groups(config, weights(config, backbone)), config)
        text = backbone.text_encoders if config.text_lora is not None else []
        self.policy, self.text_encoders, self.optimizer = prepare(
            self.accelerator, backbone.denoiser, text, optimizer
        )
        if isinstance(self.reference, FrozenCopy):
            self.reference.denoiser = split(self.accelerator, self.reference.denoiser)
        trained = weights(config, backbone)
        averaged = trained.items() if config.ema_decay else ()
        ema = {name: value.detach().clone() for name, value in averaged}
        return self._train_state(trained, ema, self.credit)

    def _step(self, step: int) -> dict[str, float]:
        config = self.config
        rate = set_learning_rate(self.state.optimizer, step, config)
        parts = [
            self._forward_backward(step, part) for part in range(config.gradient_accumulation_steps)
        ]
        norm = self._clip_and_update(step)
        self._learn_credit(parts)
        means = {
            key: self.accelerator.reduce(
                torch.stack([part.metrics[key] for part in parts]).mean(), "mean"
            ).item()
            for key in parts[0].metrics
        }
        return {**means, **norm, "learning_rate": rate}

    def _learn_credit(self, parts: list[Seen]) -> None:
        """Give the credit scheme and its diary all pairs of the step, of all processes, at once.

        After use: the corrections of this step were made by the steps before it.
        """
        timesteps = self.accelerator.gather(torch.cat([part.timesteps for part in parts]))
        errors, observed = (
            self._gathered(torch.cat([getattr(part, name) for part in parts], 1))
            for name in ("errors", "observed")
        )
        self.credit.update(errors, timesteps)
        if self.accelerator.is_main_process:
            self.diary.see(observed, timesteps)

    def _forward_backward(self, step: int, part: int) -> Seen:
        config = self.config
        last = part == config.gradient_accumulation_steps - 1
        examples = examples_of(config, self.accelerator, step, part)
        seed_dropout(config, examples)
        batch = noisy_batch(
            self.data,
            self.backbone,
            examples,
            seed=config.seed,
            sample_posterior=config.sample_posterior,
            proportion_empty_prompts=config.proportion_empty_prompts,
            density=self._density,
            step=config.examples_per_step(self.accelerator.num_processes),
            available=self._available(step),
        )
        timesteps = batch.timesteps.chunk(2)[0]
        with synced(self.accelerator, (self.policy, *self.text_encoders), last=last):
            with self.accelerator.autocast():
                residuals = residuals_of(
                    self.backbone, self.policy, self.reference, batch, self.text_encoders
                )
            errors = errors_of(residuals, config.guards.safeguard)
            seen = credited(errors, self.credit, timesteps)
            losses = self._loss(errors, seen)
            if config.statistics is not None:
                losses = losses + matching(
                    config.statistics, self.backbone.noise_schedule, batch, residuals
                )
            observed = observe(errors, seen, losses, self.beta)
            self.accelerator.backward(losses.mean())
        metrics = step_metrics(errors, seen, losses, self.beta)
        return Seen(metrics, timesteps, errors.stack().detach(), observed)

    def _density(self, height: int, width: int) -> torch.Tensor | None:
        """How often each timestep is drawn: the family's own share times the credit scheme's."""
        own = self.credit.density()
        family = self.backbone.timestep_density(height, width)
        if family is None or self.config.timesteps == "uniform":
            return own
        return family if own is None else family * own

    def _available(self, step: int) -> int:
        """How many pairs, those with the widest gap first, this step may draw."""
        plan = self.config.curriculum
        if plan is None:
            return len(self.data)
        return available_pairs(len(self.data), step, chunks=plan.chunks, every=plan.steps_per_chunk)

    def _loss(self, errors: DenoisingErrors, seen: DenoisingErrors) -> torch.Tensor:
        """Weighted sum of the configured losses, shape [pairs].

        The margin and its penalty are log-ratios of whole images, estimated with credit; a loss of
        the chosen error alone is a regression at this timestep, and sees the error as it is.
        """
        inputs = {
            "margin": penalised(seen, self.config.guards.chosen_penalty),
            "chosen_error": errors.policy_chosen,
        }
        terms = [weight * loss(inputs[looks_at]) for weight, looks_at, loss in self.losses]
        return torch.stack(terms).sum(0)

    def _gathered(self, values: torch.Tensor) -> torch.Tensor:
        """Values of shape [rows, pairs], with the pairs of all processes."""
        gathered: torch.Tensor = self.accelerator.gather(values.T.contiguous())
        return gathered.T

    def _clip_and_update(self, step: int) -> dict[str, float]:
        """Clip, step, average; return the gradient norm before clipping, where it is finite."""
        config = self.config
        clipped = clip_gradient(
            self.accelerator, self.state, config, step=step, checkpoints=self.checkpoints
        )
        norm, most = clipped.get("grad_norm", 0.0), config.guards.max_gradient
        if most is not None and norm > most:
            raise TastemakerError(
                f"step {step + 1}: the gradient's norm {norm:.3g} exceeds guards.max_gradient."
                f" Lower train.learning_rate. {last_good(self.checkpoints)}"
            )
        self.optimizer.step()
        self.optimizer.zero_grad()
        if config.ema_decay:
            for name, average in self.state.ema.items():
                average.lerp_(self.state.weights[name].detach(), 1 - config.ema_decay)
        return clipped

    def _record(self, done: int, row: dict[str, float]) -> None:
        if not math.isfinite(row["loss"]):
            raise TastemakerError(
                f"step {done}: the loss is {row['loss']}. Check the pairs' images and lower"
                f" train.learning_rate. {last_good(self.checkpoints)}"
            )
        self.accelerator.log(row, step=done)
        warning = self.watch.seen(row["rewards/margins"], row["errors/chosen"])
        if warning and self.accelerator.is_main_process:
            tqdm.write(f"warning, step {done}: {warning}")
        super()._record(done, row)
        main = self.accelerator.is_main_process
        if main:
            self.diary.end_step(done)
        sheet = self.sheets is not None and done % self.config.validation.steps == 0
        # A split denoiser draws in all processes or in none.
        if self.sheets is not None and sheet and (main or self.accelerator.is_fsdp2):
            self.sheets.draw(done, save=main)

    def _save_model(self) -> None:
        """Close the trackers and write the trained model; with EMA on, the averaged weights."""
        # Not `end_training`: it would take the process group from the commands that follow.
        for tracker in self.accelerator.trackers:
            tracker.finish()
        main = self.accelerator.is_main_process
        for name, average in self.state.ema.items():
            self.state.weights[name].data.copy_(average)
        join(self.backbone.denoiser, keep=main)
        if main and self.config.method != "full":
            save_lora(self.backbone, self.config.model, self.output)
        elif main:
            save_whole(self.config.model, self.output, self.backbone.denoiser)
