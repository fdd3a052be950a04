"""Print the package's files and lines that one optimiser step of a LoRA DPO training executes.

    python benchmarks/step_files.py

Two counts on `nano`, traced line by line: `train_step` on a batch that is there, and a step of a
run with all that belongs to it, from reading the batch to the lines of metrics.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import tastemaker
from tastemaker.config.loading import load
from tastemaker.config.training import TrainConfig
from tastemaker.training.preference.trainer import PreferenceTrainer

PACKAGE = Path(tastemaker.__file__).parent
SMALL = (
    "generate.prompts.number=2",
    "generate.num_candidates=2",
    "generate.num_inference_steps=2",
    "train.batch_size=1",
    "train.report_to=null",
)


def executed(work: Callable[[], object]) -> dict[str, int]:
    """Number of the package's lines that a call executes, by file."""
    lines: dict[str, set[int]] = defaultdict(set)

    def local(frame: FrameType, event: str, _: Any) -> Any:
        if event == "line":
            lines[frame.f_code.co_filename].add(frame.f_lineno)
        return local

    def calls(frame: FrameType, event: str, _: Any) -> Any:
        return local if frame.f_code.co_filename.startswith(str(PACKAGE)) else None

    before = sys.gettrace()
    sys.settrace(calls)
    try:
        work()
    finally:
        sys.settrace(before)
    return {str(Path(file).relative_to(PACKAGE)): len(lines[file]) for file in sorted(lines)}


def counts(config: TrainConfig, pairs: Path, output: Path) -> tuple[dict[str, int], dict[str, int]]:
    """Train one step, then count the lines of the second by `train_step`, and of the third whole.

    Args:
        config: Of the training.
        pairs: Its pairs.
        output: Its folder.
    """
    trainer = PreferenceTrainer(config.model, pairs, config, output=output)
    trainer.begin()
    trainer._step([trainer.batch(0)])
    trainer.read()
    batch = trainer.batch(1)
    ready = executed(lambda: trainer.train_step(batch))
    batches = trainer._batches()

    def whole() -> None:
        trainer._step(itertools.islice(batches, 1))
        trainer.read()

    return ready, executed(whole)


def main() -> None:
    """Count the lines of the demo's training on two pairs."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    config = load("demo", SMALL)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pool = tastemaker.generate(config.generate, folder / "pool")
        pairs = tastemaker.pair(config.pair, tastemaker.score(config.score, pool), folder / "pairs")
        ready, whole = counts(config.train, pairs, folder / "policy")
    print("train_step | whole step | file")
    for file, lines in whole.items():
        print(f"{ready.get(file, ''):>10} | {lines:10} | {file}")
    for each in (ready, whole):
        print(f"{sum(each.values())} lines in {len(each)} files")


if __name__ == "__main__":
    main()
