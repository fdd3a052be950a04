"""Metrics of optimizer steps: kept on the device until they are read, then lines of a file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from tastemaker.storage.files import read_json_lines, write_text


class PendingMetrics:
    """Metrics of the steps that were done since they were last read.

    Args:
        accelerator: Of the training, to average over processes.
    """

    def __init__(self, accelerator: Accelerator) -> None:
        self.accelerator = accelerator
        self.steps: list[tuple[int, dict[str, torch.Tensor], float]] = []

    def add(self, step: int, values: dict[str, torch.Tensor], rate: float) -> None:
        """Keep a step's scalars, by name, and its learning rate."""
        self.steps.append((step, values, rate))

    def read(self) -> list[tuple[int, dict[str, float]]]:
        """Wait for the device, and return number and metrics of each step."""
        if not self.steps:
            return []
        values = torch.stack([torch.stack(list(row.values())) for _, row, _ in self.steps])
        means: torch.Tensor = self.accelerator.reduce(values, "mean")
        rows = [
            (step, {**dict(zip(row, numbers, strict=True)), "learning_rate": rate})
            for (step, row, rate), numbers in zip(self.steps, means.tolist(), strict=True)
        ]
        self.steps = []
        return rows


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
