"""Files of one line an optimizer step, cut back to the checkpoint on resume: `metrics.jsonl`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tastemaker.storage.files import read_json_lines, write_text


class MetricsFile:
    """One JSON object a step.

    Holds nothing that depends on the clock, so that a resumed run ends with the same bytes.

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
