"""One JSON line an event: what was measured while building, for the logs and the model card."""

import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(slots=True)
class Journal:
    """Appends measurements of a stage to `<work>/<stage>.jsonl` and prints them.

    Attributes:
        path: The file of JSON lines.
        started: Start of this process' part of the stage; lines carry seconds since then.
    """

    path: Path
    started: float = field(default_factory=time.monotonic)

    def write(self, **values: Any) -> None:
        """Append one line; floats are rounded to five significant digits."""
        line = {"seconds": round(time.monotonic() - self.started, 1)}
        for key, value in values.items():
            line[key] = float(f"{value:.5g}") if isinstance(value, float) else value
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        print(self.path.stem, json.dumps(line), flush=True)

    def lines(self) -> list[dict[str, Any]]:
        """All lines written so far, by this and by earlier processes."""
        if not self.path.exists():
            return []
        return [json.loads(line) for line in self.path.read_text(encoding="utf-8").splitlines()]
