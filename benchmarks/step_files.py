"""Print the package's files and lines that one optimiser step of a LoRA DPO training executes.

    python benchmarks/step_files.py

Batch, loss, backward pass, update and metrics of the second step on `nano`, traced line by line.
"""

from __future__ import annotations

import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from types import FrameType
from typing import Any

import tastemaker
from tastemaker.config.loading import load
from tastemaker.storage.pairs import PairSet
from tastemaker.training.preference.trainer import PreferenceTrainer

PACKAGE = Path(tastemaker.__file__).parent
SMALL = (
    "generate.prompts.number=2",
    "generate.num_candidates=2",
    "generate.num_inference_steps=2",
    "train.batch_size=1",
)


def small_pairs(folder: Path) -> PairSet:
    """Two pairs of the demo."""
    config = load("demo", SMALL)
    pool = tastemaker.generate(config.generate, folder / "pool")
    return PairSet(
        tastemaker.pair(config.pair, tastemaker.score(config.score, pool), folder / "pairs")
    )


def traced_step(trainer: PreferenceTrainer) -> dict[str, set[int]]:
    """Lines of the package that a step executes, by file."""
    lines: dict[str, set[int]] = defaultdict(set)

    def local(frame: FrameType, event: str, _: Any) -> Any:
        if event == "line":
            lines[frame.f_code.co_filename].add(frame.f_lineno)
        return local

    def calls(frame: FrameType, event: str, _: Any) -> Any:
        return local if frame.f_code.co_filename.startswith(str(PACKAGE)) else None

    sys.settrace(calls)
    try:
        trainer._step([trainer.batch(trainer.done)])
        trainer.read()
    finally:
        sys.settrace(None)
    return dict(lines)


def main() -> None:
    """Train one step, then trace another."""
    with tempfile.TemporaryDirectory() as name:
        pairs = small_pairs(Path(name))
        train = load("demo", (*SMALL, "train.report_to=null")).train
        trainer = PreferenceTrainer(train.model, pairs, train, output=Path(name) / "policy")
        trainer.begin()
        trainer._step([trainer.batch(trainer.done)])
        trainer.read()
        lines = traced_step(trainer)
    for file in sorted(lines):
        print(f"{len(lines[file]):5} lines  {Path(file).relative_to(PACKAGE)}")
    print(f"{sum(map(len, lines.values())):5} lines in {len(lines)} files")


if __name__ == "__main__":
    main()
