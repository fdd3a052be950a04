"""Preference optimisation: the micro-batch of pairs, its credit scheme and its guards."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from tastemaker.backbones import compile_blocks
from tastemaker.backbones.staged import keep_parts
from tastemaker.config.loading import section_of
from tastemaker.config.training import TrainConfig
from tastemaker.core.errors import TastemakerError
from tastemaker.core.hardware import everywhere
from tastemaker.storage.artifact import Artifact
from tastemaker.storage.pairs import PairSet
from tastemaker.storage.trained_prompts import write_trained_prompts
from tastemaker.training.batches import BatchLoss, mean_square
from tastemaker.training.checkpoint import last_good
from tastemaker.training.fsdp import join, split
from tastemaker.training.optimization import (
    load_policy,
    own_policy,
    text_rates,
    trainable_parameters,
)
from tastemaker.training.preference.data import PairBatch, encoded_examples, fingerprint, kept_in
from tastemaker.training.preference.diagnostics import (
    CreditDiary,
    DivergenceWatch,
    observe,
    step_metrics,
)
from tastemaker.training.preference.fixed_draws import FixedDraws, fixed_draws
from tastemaker.training.preference.inverted_noise import inverted_noise
from tastemaker.training.preference.noise import batches_of, noise_source
from tastemaker.training.preference.objective import (
    FrozenCopy,
    Losses,
    credited,
    errors_of,
    residuals_of,
)
from tastemaker.training.preference.parameters import add_text_adapters, averages, make_trainable
from tastemaker.training.preference.statistics import estimate_of, matching
from tastemaker.training.preference.step_arrays import move_arrays
from tastemaker.training.preference.terms import build_credit, timestep_densities
from tastemaker.training.preference.validation import ValidationSheets
from tastemaker.training.preference.verdicts import examples_of
from tastemaker.training.saving import save_lora, save_whole
from tastemaker.training.trainer import Trainer
from tastemaker.training.warnings import warn_of_sizes


class PreferenceTrainer(Trainer[TrainConfig, PairBatch]):
    """A training on pairs.

    `train` trains; `train_step` does one step of a loop of your own.

    Args:
        model: Name, hub id or folder, or a loaded diffusers pipeline, which gets the LoRA.
        pairs: A folder that `pair` or an import wrote; or a sequence of mappings with `prompt`,
            `chosen` and `rejected` (PIL images or paths), such as a `datasets.Dataset`.
        config: All options; None: those in `options`.
        output: Folder of checkpoints, metrics and the trained model.
        **options: Of `TrainConfig`, in place of `config`.

    Raises:
        TastemakerError: The model, an option, a target layer or an image is wrong.

    Example:
        trainer = PreferenceTrainer("nano", dataset, output="my-lora", max_steps=100)
        pipeline.load_lora_weights(trainer.train())
    """

    unit = "pairs"
    shown = ("rewards/accuracies", "loss")
    remedy = "Check the pairs' images and lower train.learning_rate."

    def __init__(
        self,
        model: Any,
        pairs: str | Path | PairSet | Sequence[Mapping[str, Any]],
        config: TrainConfig | None = None,
        *,
        output: str | Path = "trainer_output",
        **options: Any,
    ) -> None:
        given = None if isinstance(model, str | Path) else own_policy(model)
        name = str(model) if given is None else given.name
        config = section_of(TrainConfig, config, {"model": name, **options})
        super().__init__(config, Path(output), config.report_to)
        whole, draws = config.method == "full", config.validation.steps > 0
        self.backbone = given or load_policy(config, whole=whole, staged=not draws)
        add_text_adapters(config, self.backbone)
        self.given = given is not None
        noise = noise_source(config, pairs, self.backbone)
        kept = None if self.given or config.cache == "none" else kept_in(pairs, self.output)
        self.examples = examples_of(pairs, config)
        self.data = encoded_examples(self.examples, config, self.backbone, kept)
        if config.noise == "inverted":
            noise = inverted_noise(config, self.backbone, self.data, kept)
        sheets = (config.validation, self.backbone, self.output / "validation", config.seed)
        self.sheets = ValidationSheets(*sheets) if draws else None
        if self.sheets is None and not self.given:
            text = self.backbone.text_parts if config.text_lora is not None else ()
            keep_parts(self.backbone, (self.backbone.part, *text))
        self.backbone.prepare_training(config.dtype)
        self.reference = make_trainable(config, self.backbone)
        self.losses = Losses(config)
        self.credit = build_credit(config, self.backbone)
        shapes = self.data.latents.shapes
        warn_of_sizes(self.backbone, shapes)
        densities = timestep_densities(config, self.backbone, self.credit, shapes)
        with self.accelerator.main_process_first():
            self.fixed = fixed_draws(config, self.data, densities, kept)
        device, step = self.accelerator.device, self.samples_per_step
        self.batches = batches_of(noise, self.data, self.backbone, device, config, step, densities)
        move_arrays(self.credit, device)
        if config.statistics is not None:
            schedule = self.backbone.noise_schedule
            self.estimate = estimate_of(config.statistics, schedule, device)
        self.watch = DivergenceWatch()
        self.diary: CreditDiary | None = None
        self.beta = float(config.loss.options.get("beta", 1.0))
        self._prepare()

    def train(self) -> Path:
        """Train, or go on from the newest checkpoint in `output`.

        Returns:
            `output`, a LoRA for `load_lora_weights` (or a whole pipeline after `method=full`).

        Raises:
            TastemakerError: `output` belongs to another model, other pairs or other options, or a
                loss or gradient is not finite.
        """
        config = self.config
        weights = fingerprint(self.backbone.denoiser.state_dict())
        inputs = {"pairs": self.data.fingerprint, "model": weights}
        settings = {**config.identity(), "inputs": inputs}
        artifact = Artifact(self.output, "train", settings, config.rising)
        with artifact.claimed() as unfinished:
            if unfinished:
                self.run()
                prompts = (text for _, text, _ in self.examples.rows() if text)
                write_trained_prompts(self.output, prompts, [config.model])
                artifact.finish(steps=config.max_steps)
        return self.output

    def _prepare(self) -> None:
        config, backbone = self.config, self.backbone
        text = backbone.text_encoders if config.text_lora is not None else []
        rates = text_rates(trainable_parameters(backbone.denoiser, text), config)
        copies = [self.reference.denoiser] if isinstance(self.reference, FrozenCopy) else []
        self.prepare(text, rates)
        for each in copies:
            split(self.accelerator, each)
        for each in (backbone.denoiser, *copies) if config.torch_compile else ():
            compile_blocks(each, dynamic=len(self.data.latents.shapes) > 1)
        self.averages = averages(config, self.state.weights, self.reference)
        self.state.extras |= {"credit": self.credit, "losses": self.losses, **self.averages}

    def begin(self) -> None:
        """Restore the newest checkpoint; open diary and tracker."""
        super().begin()
        folder = self.output if self.main else None
        self.diary = CreditDiary(self.credit, self.config.max_steps, folder, self.done)
        if self.config.report_to:
            self.accelerator.init_trackers("logs")
        if self.fixed is not None:
            self._fill(self.fixed)

    def _fill(self, fixed: FixedDraws) -> None:
        """Compute the reference's errors on all draws to come."""
        steps = range(self.done, self.config.max_steps)
        most = min(len(fixed.errors), len(steps) * self.samples_per_step)
        with tqdm(total=most, desc="reference", unit="pairs", disable=not self.main) as bar:
            for step, part in itertools.product(steps, self._parts):
                samples = self.samples(step, part)
                pairs = self.batches.pairs(step, samples)
                draws = fixed.numbers(pairs, samples)
                # A sharded reference runs in all processes or in none.
                if not everywhere(fixed.known(draws)):
                    self._learn(fixed, draws, self.batches.noisy(pairs, draws))
                    bar.update(len(draws) * self.accelerator.num_processes)
        if isinstance(self.reference, FrozenCopy):
            self.reference.release()
        self.accelerator.wait_for_everyone()

    def _learn(self, fixed: FixedDraws, draws: Sequence[int], batch: PairBatch) -> None:
        with self.accelerator.autocast():
            residual = self.reference.residual(batch)
        fixed.write(draws, mean_square(residual))

    def batch(
        self, step: int, part: int = 0, pairs: Sequence[int] | torch.Tensor | None = None
    ) -> PairBatch:
        """Make a micro-batch.

        Args:
            step: Optimizer steps done before.
            part: Which of the micro-batches that the step accumulates.
            pairs: Indices of pairs whose images have one size; None draws as configured.
        """
        samples, fixed = self.samples(step, part), self.fixed
        index = self.batches.pairs(step, samples) if pairs is None else torch.as_tensor(pairs)
        draws: Sequence[int] = range(samples.start, samples.start + len(index))
        if fixed is None:
            return self.batches.noisy(index, draws)
        draws = fixed.numbers(index, draws)
        batch = self.batches.noisy(index, draws)
        if not fixed.known(draws):
            self._learn(fixed, draws, batch)
        return replace(batch, reference_errors=fixed.read(draws).to(self.accelerator.device))

    def loss(self, batch: PairBatch) -> BatchLoss:
        """Compute the loss of pairs: errors of policy and reference, credit, losses."""
        config, backbone = self.config, self.backbone
        with self.accelerator.autocast():
            residuals = residuals_of(
                backbone, self.policy, self.reference, batch, self.text_encoders
            )
        errors = errors_of(*residuals, config.guards)
        timesteps = batch.timesteps[: len(batch.score_gap)]
        seen = credited(errors, self.credit, timesteps)
        losses = self.losses.weighted_sum(errors, seen, residuals, batch.score_gap)
        if config.statistics is not None:
            losses = losses + matching(config.statistics, self.estimate, batch, *residuals)
        observed = observe(errors, seen, losses, self.beta)
        metrics = step_metrics(errors, seen, observed, self.beta)
        gains = torch.stack([seen.chosen_gain, seen.rejected_gain]).detach()
        details = (timesteps, errors.stack().detach(), observed, gains)
        return BatchLoss(losses.mean(), metrics, details)

    def check(self, step: int, row: dict[str, float]) -> None:
        """Stop where loss or gradient is not finite, or exceeds `guards.max_gradient`."""
        super().check(step, row)
        norm, most = row.get("grad_norm", 0.0), self.config.guards.max_gradient
        if most is not None and norm > most:
            raise TastemakerError(
                f"step {step}: the gradient's norm {norm:.3g} exceeds guards.max_gradient."
                f" Lower train.learning_rate. {last_good(self.checkpoints)}"
            )

    def after_update(self, details: Sequence[tuple[torch.Tensor, ...]]) -> None:
        """Update averages and credit scheme, the latter with all pairs of all processes at once.

        After use: the corrections of a step are made by the steps before it.
        """
        for each in self.averages.values():
            each.update(self.done + 1)
        timesteps, errors, observed, gains = (
            torch.cat(each, -1) for each in zip(*details, strict=True)
        )
        if self.losses.state():
            self.losses.update(self._gathered(gains))
        if not self.credit.neutral:
            self.credit.update(self._gathered(errors), self._gathered(timesteps))
        if self.diary is not None:
            self.diary.see(self.done + 1, observed, timesteps)

    def _gathered(self, values: torch.Tensor) -> torch.Tensor:
        """Values of all processes, the last dimension that of pairs."""
        gathered: torch.Tensor = self.accelerator.gather(values.movedim(-1, 0).contiguous())
        return gathered.movedim(0, -1)

    def reads(self) -> bool:
        """Return whether metrics are read after the step, also before a validation sheet."""
        return super().reads() or self._sheet_due()

    def read(self) -> dict[str, float]:
        """Check and record the steps since the last time; draw a validation sheet if it is due."""
        row = super().read()
        if self.diary is not None:
            self.diary.write(self._gathered)
        # A sharded denoiser draws in all processes or in none.
        draws = self._sheet_due() and (self.main or self.accelerator.is_fsdp2)
        if self.sheets is not None and draws:
            self.sheets.draw(self.done, save=self.main)
        return row

    def _sheet_due(self) -> bool:
        return self.sheets is not None and self.done % self.config.validation.steps == 0

    def record(self, step: int, row: dict[str, float]) -> None:
        """Keep a step's metrics; warn of divergence."""
        super().record(step, row)
        self.accelerator.log(row, step=step)
        warning = self.watch.seen(row["rewards/margins"], row["errors/chosen"])
        if warning and self.main:
            tqdm.write(f"warning, step {step}: {warning}")

    def save_model(self) -> None:
        """Close the trackers and write the trained model; with EMA on, the averaged weights."""
        # Not `end_training`: it would take the process group from the commands that follow.
        for tracker in self.accelerator.trackers:
            tracker.finish()
        if "ema" in self.averages:
            self.averages["ema"].apply()
        join(self.backbone.denoiser, keep=self.main)
        if not self.main:
            return
        if self.config.method != "full":
            save_lora(self.backbone, self.config.model, self.output)
        elif self.given:
            self.backbone.save_pipeline(self.output)
        else:
            save_whole(self.config.model, self.output, self.backbone.denoiser)
