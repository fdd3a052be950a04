"""The loop of every training: resume, optimise, record, save. A training adds batch and loss."""

from __future__ import annotations

import contextlib
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import torch
from tqdm import tqdm

from tastemaker.backbones import Backbone
from tastemaker.config.training import OptimisationConfig
from tastemaker.core.errors import TastemakerError
from tastemaker.core.interruption import Interruption
from tastemaker.core.seeding import keyed_seed
from tastemaker.storage.files import read_json_lines, write_text
from tastemaker.training.checkpoint import (
    TrainState,
    drop_old,
    due_steps,
    last_good,
    resume,
    save_checkpoint,
)
from tastemaker.training.fsdp import prepare
from tastemaker.training.optimization import accelerator_for, adamw, trainable_parameters

Config = TypeVar("Config", bound=OptimisationConfig)
Batch = TypeVar("Batch")


@dataclass(frozen=True)
class BatchLoss:
    """Loss of one micro-batch.

    Attributes:
        loss: Scalar with its graph.
        metrics: Scalars without.
        details: What `Trainer.after_update` needs of the batch, without graph.
    """

    loss: torch.Tensor
    metrics: dict[str, torch.Tensor]
    details: tuple[torch.Tensor, ...] = ()


class Trainer(ABC, Generic[Config, Batch]):
    """A training: built from its configuration, resumed from its newest checkpoint.

    A sample depends on the seed and its number in the run alone, not on how steps are cut into
    batches, the number of processes or the point of resumption.

    Args:
        config: Of the training.
        output: Folder of checkpoints, metrics and the trained model.
        tracker: Any that accelerate knows, or None.

    Attributes:
        done: Optimizer steps done.

    Raises:
        TastemakerError: The precision needs another device, or accelerate refuses.
    """

    unit: ClassVar[str]
    """Name of the samples: "pairs" or "images"."""

    shown: ClassVar[tuple[str, ...]] = ("loss",)
    """Metrics beside the progress bar."""

    remedy = "Lower learning_rate, or raise dtype to fp32."
    """Advice about a loss or gradient that is not finite."""

    wrapped: ClassVar[bool] = True
    """Let accelerate wrap the networks: DDP and FSDP2 expect one forward per backward pass."""

    backbone: Backbone
    policy: torch.nn.Module
    text_encoders: Sequence[torch.nn.Module]
    optimizer: Any
    state: TrainState

    def __init__(self, config: Config, output: Path, tracker: str | None = None) -> None:
        self.config = config
        self.output = output
        self.checkpoints = output / "checkpoints"
        self.accelerator = accelerator_for(config, output, tracker, shards=self.wrapped)
        self.main = self.accelerator.is_main_process
        self.samples_per_step = config.examples_per_step(self.accelerator.num_processes)
        self.due = due_steps(config)
        self._parts = range(config.gradient_accumulation_steps)
        self.done = 0

    def prepare(
        self,
        text_encoders: Sequence[torch.nn.Module] = (),
        rates: Mapping[str, float] | None = None,
    ) -> None:
        """Hand networks and optimizer to accelerate, and set `state`.

        Args:
            text_encoders: Those that train.
            rates: Learning rates of parameters that have one of their own, by name.
        """
        denoiser = self.backbone.denoiser
        optimizer = adamw(trainable_parameters(denoiser, text_encoders), self.config, rates)
        if self.wrapped:
            self.policy, self.text_encoders, self.optimizer = prepare(
                self.accelerator, denoiser, text_encoders, optimizer
            )
        else:
            self.policy, self.text_encoders = denoiser, text_encoders
            self.optimizer = self.accelerator.prepare(optimizer)
        # Again, since FSDP2 replaces parameters; the state to keep is that of the optimizer inside.
        weights = trainable_parameters(denoiser, text_encoders)
        self.state = TrainState(weights, self.optimizer.optimizer, scaler=self.accelerator.scaler)

    def run(self) -> None:
        """Train to the last step, then save the model.

        Raises:
            TastemakerError: Loss or gradient is not finite; the last checkpoint is named.
            KeyboardInterrupt: After Ctrl-C, once the step is done and its checkpoint written.
            SystemExit: The same after SIGTERM.
        """
        self.begin()
        steps, samples = self.config.max_steps, self.samples_per_step
        total, initial = steps * samples, self.done * samples
        bar = tqdm(total=total, initial=initial, desc="train", unit=self.unit)
        with bar, Interruption() as interruption:
            while self.done < steps:
                row = self._step(self.batch(self.done, part) for part in self._parts)
                self.record(row)
                bar.set_postfix({key: f"{row[key]:.3f}" for key in self.shown})
                bar.update(samples)
                stopped = self._sum(interruption.signal)
                if stopped or self.done in self.due:
                    save_checkpoint(self.state, self.checkpoints, self.done, self.due)
                if stopped:
                    interruption.act()
        self.save_model()
        self.accelerator.wait_for_everyone()  # all read it in the next command

    def begin(self) -> None:
        """Restore the newest checkpoint and cut the files of metrics back to it."""
        self.done = resume(self.state, self.checkpoints)
        if self.main:
            drop_old(self.checkpoints, self.due)  # left by a kill
            self.metrics = MetricsFile(self.output / "metrics.jsonl", self.done)

    def samples(self, step: int, part: int = 0) -> range:
        """Return the numbers in the run of this process's samples in a micro-batch.

        Args:
            step: Optimizer steps done before.
            part: Which of the micro-batches that the step accumulates.
        """
        size = self.config.batch_size
        batch = part * self.accelerator.num_processes + self.accelerator.process_index
        first = step * self.samples_per_step + batch * size
        return range(first, first + size)

    @abstractmethod
    def batch(self, step: int, part: int = 0) -> Batch:
        """Make a micro-batch of `samples(step, part)`."""

    @abstractmethod
    def loss(self, batch: Batch) -> BatchLoss:
        """Compute the loss of a micro-batch."""

    def train_step(self, *batches: Batch) -> dict[str, float]:
        """Do one optimizer step.

        Args:
            *batches: Its micro-batches, as many as `gradient_accumulation_steps`.

        Returns:
            Its metrics.

        Raises:
            TastemakerError: Their number is another, or loss or gradient is not finite.
        """
        if len(batches) != (parts := len(self._parts)):
            raise TastemakerError(
                f"give gradient_accumulation_steps={parts} batches, not {len(batches)}."
            )
        return self._step(batches)

    def _step(self, batches: Iterable[Batch]) -> dict[str, float]:
        rate = learning_rate_at(self.done, self.config)
        for group in self.state.optimizer.param_groups:
            group["lr"] = rate * group["rate"]
        losses = [self._backward(part, batch) for part, batch in enumerate(batches)]
        row = {"loss": self._mean([each.loss for each in losses])}
        for key in losses[0].metrics:
            row[key] = self._mean([each.metrics[key] for each in losses])
        self._check("loss", row["loss"])
        row |= self.clip_gradient()
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.after_update([each.details for each in losses])
        self.done += 1
        return {**row, "learning_rate": rate}

    def _backward(self, part: int, batch: Batch) -> BatchLoss:
        """Add the gradient of one micro-batch."""
        # One dropout mask is drawn for a whole batch: here alone the cut into batches enters.
        first = self.samples(self.done, part).start
        torch.manual_seed(keyed_seed(self.config.seed, "dropout", first))
        with contextlib.ExitStack() as stack:
            # Gradients cross processes with the last batch of a step alone.
            for network in (self.policy, *self.text_encoders) if part != self._parts[-1] else ():
                stack.enter_context(self.accelerator.no_sync(network))
            computed = self.loss(batch)
            self.accelerator.backward(computed.loss)
        return BatchLoss(computed.loss.detach(), computed.metrics, computed.details)

    def clip_gradient(self) -> dict[str, float]:
        """Clip the gradient of all weights together.

        Returns:
            The metric `grad_norm`, from before clipping; nothing where an fp16 loss overflowed.

        Raises:
            TastemakerError: The gradient is not finite.
        """
        parameters = list(self.state.weights.values())
        for parameter in () if self.wrapped else parameters:
            parameter.grad = self.accelerator.reduce(parameter.grad, "mean")
        norm = float(self.accelerator.clip_grad_norm_(parameters, self.config.max_grad_norm))
        # Under fp16 an overflow is ordinary: the scaler skips the step and lowers its scale.
        if self.state.scaler is not None and not math.isfinite(norm):
            return {}
        self._check("gradient", norm)
        return {"grad_norm": norm}

    def after_update(self, details: Sequence[tuple[torch.Tensor, ...]]) -> None:
        """Update what depends on the new weights, or on the batches: their `BatchLoss.details`."""

    def record(self, row: dict[str, float]) -> None:
        """Keep the metrics of the step that was just done."""
        if self.main:
            self.metrics.append(self.done, row)

    @abstractmethod
    def save_model(self) -> None:
        """Write the trained model."""

    def _sum(self, number: int) -> int:
        """Sum over processes."""
        value = torch.tensor(number, device=self.accelerator.device)
        return int(self.accelerator.reduce(value, "sum"))

    def _mean(self, values: Sequence[torch.Tensor]) -> float:
        """Mean over micro-batches and processes."""
        return float(self.accelerator.reduce(torch.stack(list(values)).mean(), "mean").item())

    def _check(self, name: str, value: float) -> None:
        if not math.isfinite(value):
            raise TastemakerError(
                f"step {self.done + 1}: the {name} is {value}. {self.remedy}"
                f" {last_good(self.checkpoints)}"
            )


def learning_rate_at(step: int, config: OptimisationConfig) -> float:
    """Learning rate of an optimizer step: linear warm-up, then constant, cosine or linear decay.

    A pure function of the step, so that resuming needs no scheduler state.

    Args:
        step: From 0 to `config.max_steps - 1`; later ones count as the last.
        config: Peak rate, warm-up, schedule and number of steps.

    Returns:
        The rate; cosine and linear would reach 0 one step after the last.

    Example:
        >>> options = {"max_steps": 4, "learning_rate": 1.0, "lr_scheduler": "linear"}
        >>> config = OptimisationConfig(model="m", **options)
        >>> [learning_rate_at(step, config) for step in range(4)]
        [1.0, 0.75, 0.5, 0.25]
    """
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / (config.warmup_steps + 1)
    step = min(step, max(config.warmup_steps, config.max_steps - 1))
    progress = (step - config.warmup_steps) / max(1, config.max_steps - config.warmup_steps)
    factors = {
        "constant": 1.0,
        "linear": 1.0 - progress,
        "cosine": 0.5 * (1.0 + math.cos(math.pi * progress)),
    }
    return config.learning_rate * factors[config.lr_scheduler]


class MetricsFile:
    """File of one JSON object per optimizer step.

    Nothing in it depends on the clock: a resumed run ends with the same bytes.

    Args:
        path: The file.
        step: Steps of the checkpoint that the run goes on from; later lines are dropped.
    """

    def __init__(self, path: Path, step: int) -> None:
        self.path = path
        kept = [row for row in read_json_lines(path, step=int) if row["step"] <= step]
        write_text(path, "".join(json.dumps(row) + "\n" for row in kept))

    def append(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Add one step's values: numbers, or lists of numbers."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **metrics}) + "\n")
