"""What a training does whatever it learns from: begin at its newest checkpoint, step, save."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Generic, TypeVar

import torch
from accelerate.optimizer import AcceleratedOptimizer
from tqdm import tqdm

from tastemaker.backbones import Backbone, load_backbone, student_warning
from tastemaker.config.training import OptimisationConfig
from tastemaker.training.checkpoint import TrainState, drop_old, is_due, resume, save_checkpoint
from tastemaker.training.metrics_file import MetricsFile
from tastemaker.training.optimization import accelerator_for
from tastemaker.training.preference.credit import Credit
from tastemaker.training.progress import steps_left

Config = TypeVar("Config", bound=OptimisationConfig)


class TrainingRun(ABC, Generic[Config]):
    """One training run: built from its configuration, resumed from its newest checkpoint.

    The main process alone has `metrics`, the file of what every step did.

    Args:
        config: Of the training.
        output: Folder of checkpoints, metrics and the trained model.
        tracker: Any that accelerate knows, or None.
        splits: Whether the training can split weights over processes.

    Raises:
        TastemakerError: The precision needs another device, or accelerate refuses.
    """

    unit: ClassVar[str]
    """What an example is: "pairs" or "images"."""

    backbone: Backbone
    optimizer: AcceleratedOptimizer
    state: TrainState
    metrics: MetricsFile

    def __init__(
        self, config: Config, output: Path, tracker: str | None = None, *, splits: bool = True
    ) -> None:
        self.config = config
        self.output = output
        self.checkpoints = output / "checkpoints"
        self.accelerator = accelerator_for(config, output, tracker, splits=splits)

    def run(self) -> None:
        """Train to the last step, then save the model.

        Raises:
            TastemakerError: Loss, score or gradient is not finite; the last checkpoint is named.
        """
        start = resume(self.state, self.checkpoints)
        if self.accelerator.is_main_process:
            drop_old(self.checkpoints)  # a kill came between the last checkpoint and this
        self._begin(start)
        for step, bar in steps_left(self.config, self.accelerator, start, self.unit):
            row = self._step(step)
            self._after_step(step + 1, row)
            bar.set_postfix(self._shown(row))
        self._save_model()
        # The other processes read it in the next command.
        self.accelerator.wait_for_everyone()

    def _load(self, *, whole: bool = False) -> Backbone:
        """Load the model to train, the LoRAs that it has already among its weights.

        Frozen weights take the training precision; weights that train (`whole`) stay in fp32.
        """
        warning = student_warning(self.config.model)
        if warning and self.accelerator.is_main_process:
            tqdm.write(f"warning: {warning}")
        dtype = "fp32" if whole else self.config.dtype
        config = self.config
        return load_backbone(config.model, device=config.device, dtype=dtype, fused=True)

    def _train_state(
        self,
        weights: Mapping[str, torch.nn.Parameter],
        ema: dict[str, torch.Tensor],
        credit: Credit,
    ) -> TrainState:
        # accelerate wraps the optimizer; the state to keep is that of the one inside.
        inside = self.optimizer.optimizer
        return TrainState(weights, inside, ema, credit, self.accelerator.scaler)

    def _begin(self, start: int) -> None:
        """Open the files of what every step does, cut back to the `start` that is resumed."""
        if self.accelerator.is_main_process:
            self.metrics = MetricsFile(self.output / "metrics.jsonl", start)

    @abstractmethod
    def _step(self, step: int) -> dict[str, float]:
        """One optimizer step over all its accumulated batches; its metrics."""

    def _after_step(self, done: int, row: dict[str, float]) -> None:
        """Record the step, and write a checkpoint where one is due."""
        self._record(done, row)
        if is_due(self.config, done):
            write = self.accelerator.is_main_process
            save_checkpoint(self.state, self.checkpoints, done, write=write)

    def _record(self, done: int, row: dict[str, float]) -> None:
        """Keep a step's metrics."""
        if self.accelerator.is_main_process:
            self.metrics.append(done, row)

    @abstractmethod
    def _shown(self, row: dict[str, float]) -> dict[str, str]:
        """What of a step's metrics stands beside the progress bar."""

    @abstractmethod
    def _save_model(self) -> None:
        """Write the trained model."""
