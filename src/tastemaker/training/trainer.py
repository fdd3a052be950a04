"""The loop of every training: resume, optimise, record, save. A training adds batch and loss."""

from __future__ import annotations

import contextlib
import itertools
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import torch
from tqdm import tqdm

from tastemaker.backbones import Backbone
from tastemaker.config.training import OptimisationConfig
from tastemaker.core.batching import overlapped
from tastemaker.core.errors import TastemakerError
from tastemaker.core.interruption import Interruption
from tastemaker.core.seeding import keyed_seed
from tastemaker.training.batches import BatchLoss
from tastemaker.training.checkpoint import (
    TrainState,
    drop_later_lines,
    drop_old,
    due_steps,
    last_good,
    resume,
    save_checkpoint,
)
from tastemaker.training.fsdp import prepare
from tastemaker.training.optimization import (
    accelerator_for,
    adamw,
    learning_rates,
    trainable_parameters,
)

Config = TypeVar("Config", bound=OptimisationConfig)
Batch = TypeVar("Batch")


def append_line(file: Path, step: int, values: Mapping[str, Any]) -> None:
    """Append a step's values to a file as a line of JSON.

    Nothing in it depends on the clock: a resumed run ends with the same bytes.
    """
    with file.open("a", encoding="utf-8") as lines:
        lines.write(json.dumps({"step": step, **values}) + "\n")


class Trainer(ABC, Generic[Config, Batch]):
    """A training: built from its configuration, resumed from its newest checkpoint.

    Nothing in a step waits for the device: metrics stay there until `read`.

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
        self.checkpoints, self.metrics = output / "checkpoints", output / "metrics.jsonl"
        self.accelerator = accelerator_for(config, output, tracker, shards=self.wrapped)
        self.main = self.accelerator.is_main_process
        self.samples_per_step = config.examples_per_step(self.accelerator.num_processes)
        self.due = due_steps(config)
        self.rates = learning_rates(config)
        self.pending: list[tuple[int, dict[str, torch.Tensor], float]] = []
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
        self.policy, self.text_encoders, self.optimizer = prepare(
            self.accelerator, denoiser, text_encoders, optimizer, wrapped=self.wrapped
        )
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
        batches = self._batches()
        with bar, contextlib.closing(batches), Interruption() as interruption:
            while self.done < steps:
                self._step(itertools.islice(batches, len(self._parts)))
                bar.update(samples)
                stopped = self._stopped(interruption.signal)
                if stopped or self.reads():
                    row = self.read()
                    bar.set_postfix({key: f"{row[key]:.3f}" for key in self.shown})
                if stopped or self.done in self.due:
                    save_checkpoint(self.state, self.checkpoints, self.done, self.due)
                if stopped:
                    interruption.act()
        self.save_model()
        self.accelerator.wait_for_everyone()  # all read it in the next command

    def _batches(self) -> Generator[Batch, None, None]:
        """Yield the micro-batches to come; a GPU works while a thread prepares the next two."""
        device = self.accelerator.device
        places = itertools.product(range(self.done, self.config.max_steps), self._parts)

        def batch(place: tuple[int, int]) -> Batch:
            with torch.cuda.device(device):  # of this thread
                return self.batch(*place)

        if device.type == "cuda":
            yield from overlapped(batch, places, threads=1)
        else:  # a thread would take from a step what it prepares
            yield from itertools.starmap(self.batch, places)

    def begin(self) -> None:
        """Restore the newest checkpoint and cut the files of metrics back to it."""
        self.done = resume(self.state, self.checkpoints)
        if self.main:
            drop_old(self.checkpoints, self.due)  # left by a kill
            drop_later_lines(self.metrics, self.done)

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
            TastemakerError: Their number is another, or loss or gradient is not finite: the
                weights are not either.
        """
        if len(batches) != (parts := len(self._parts)):
            raise TastemakerError(
                f"give gradient_accumulation_steps={parts} batches, not {len(batches)}."
            )
        self._step(batches)
        [(step, row)] = self._read_pending()
        self.check(step, row)
        return row

    def _step(self, batches: Iterable[Batch]) -> None:
        rate = self.rates[min(self.done, len(self.rates) - 1)]
        for group in self.state.optimizer.param_groups:
            group["lr"] = rate * group["rate"]
        losses = [self._backward(part, batch) for part, batch in enumerate(batches)]
        rows = [torch.stack([each.loss, *each.metrics.values()]) for each in losses]
        row = dict(zip(("loss", *losses[0].metrics), torch.stack(rows).mean(0), strict=True))
        row["grad_norm"] = self.clip_gradient()
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.after_update([each.details for each in losses])
        self.done += 1
        self.pending.append((self.done, row, rate))

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

    def clip_gradient(self) -> torch.Tensor:
        """Clip the gradient of all weights together; return its norm from before clipping."""
        parameters = list(self.state.weights.values())
        for parameter in () if self.wrapped else parameters:
            parameter.grad = self.accelerator.reduce(parameter.grad, "mean")
        norm: Any = self.accelerator.clip_grad_norm_(parameters, self.config.max_grad_norm)
        whole: torch.Tensor = norm.full_tensor() if self.accelerator.is_fsdp2 else norm
        return whole

    def after_update(self, details: Sequence[tuple[torch.Tensor, ...]]) -> None:
        """Update what depends on the new weights, or on the batches: their `BatchLoss.details`."""

    def reads(self) -> bool:
        """Return whether metrics are read now: always before a checkpoint, to check its steps."""
        return self.done in self.due or self.done % self.config.logging_steps == 0

    def read(self) -> dict[str, float]:
        """Wait for the device, then check and record the steps since the last time.

        Returns:
            Metrics of the last.

        Raises:
            TastemakerError: A loss or gradient is not finite; the first such step is named.
        """
        row: dict[str, float] = {}
        for step, row in self._read_pending():
            self.check(step, row)
            self.record(step, row)
        return row

    def _read_pending(self) -> list[tuple[int, dict[str, float]]]:
        """Number and metrics of each step since the last time, means over all processes."""
        if not self.pending:
            return []
        values = torch.stack([torch.stack(list(row.values())) for _, row, _ in self.pending])
        means = self.accelerator.reduce(values, "mean").tolist()
        rows = [
            (step, {**dict(zip(row, numbers, strict=True)), "learning_rate": rate})
            for (step, row, rate), numbers in zip(self.pending, means, strict=True)
        ]
        self.pending = []
        return rows

    def check(self, step: int, row: dict[str, float]) -> None:
        """Make sure that a step's metrics are finite.

        Raises:
            TastemakerError: Loss or gradient is not.
        """
        # Under fp16 an overflow is ordinary: the scaler skips the step and lowers its scale.
        if self.state.scaler is not None and not math.isfinite(row["grad_norm"]):
            del row["grad_norm"]
        for key, name in (("loss", "loss"), ("grad_norm", "gradient")):
            if not math.isfinite(value := row.get(key, 0.0)):
                raise TastemakerError(
                    f"step {step}: the {name} is {value}. {self.remedy}"
                    f" {last_good(self.checkpoints)}"
                )

    def record(self, step: int, row: dict[str, float]) -> None:
        """Keep the metrics of a step."""
        if self.main:
            append_line(self.metrics, step, row)

    @abstractmethod
    def save_model(self) -> None:
        """Write the trained model."""

    def _stopped(self, signal: int) -> int:
        """Signals of all processes; where there are several, they ask each other as they read."""
        if self.accelerator.num_processes == 1:
            return signal
        if not self.reads():
            return 0
        value = torch.tensor(signal, device=self.accelerator.device)
        return int(self.accelerator.reduce(value, "sum"))
