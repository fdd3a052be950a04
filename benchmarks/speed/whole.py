"""Whole commands: `tastemaker train` and plain.py, from the shell to the saved LoRA, in turn.

    python benchmarks/speed/whole.py --model nano --rounds 3
    python benchmarks/speed/whole.py --model nano --rounds 3 --reference cached

Both train a LoRA of rank 8 on the same image files, as many pairs per step, fp32. Ours finds its
pairs imported, whose seconds are printed beside, and nothing encoded by an earlier start. Writes
its row into whole.json and whole.md beside this file.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from models import FAMILIES
from plain import BETA, CLIP, RATE
from rows import add_measured, comparison_parser

from tastemaker.backbones.loading import resolve
from tastemaker.core.hardware import environment
from tastemaker.profiling.rows import between
from tastemaker.profiling.timing import interleaved, ratios, seconds, spread
from tastemaker.profiling.training import random_pairs
from tastemaker.storage.artifact import ENCODED

HERE = Path(__file__).parent
CPU = torch.device("cpu")
PAIRS = 64
REFERENCES = {"live": [], "cached": ["reference_draws=4"]}
"""Options of our training by its reference."""


def environment_in(home: Path) -> dict[str, str]:
    """Environment of a command with a cache folder of its own."""
    return {**os.environ, "XDG_CACHE_HOME": str(home), "HF_HUB_OFFLINE": "1"}


def run(*words: str, home: Path) -> None:
    """Run a Python command with a cache folder of its own."""
    done = subprocess.run(
        [sys.executable, *words],
        env=environment_in(home),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(words)} failed:\n{done.stderr[-2000:]}")


def write_data(folder: Path, side: int) -> None:
    """Write pairs as image files with metadata.jsonl, which both read."""
    folder.mkdir()
    lines = []
    for number, row in enumerate(random_pairs(PAIRS, (side, side))):
        names = {each: f"{number:03d}-{each}.png" for each in ("chosen", "rejected")}
        for each, name in names.items():
            row[each].save(folder / name)
        lines.append(json.dumps({"prompt": row["prompt"], **names}))
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


class Commands:
    """Both commands on one model, each in folders of its own at every call.

    Args:
        model: A pipeline's folder.
        root: For what they write.
        steps: Optimizer steps.
        batch: Pairs per step.
        reference: Of our training, "live" or "cached".
    """

    def __init__(
        self, model: Path, root: Path, steps: int, batch: int, reference: str = "live"
    ) -> None:
        self.model, self.root, self.steps, self.batch = model, root, steps, batch
        self.more, self.calls = REFERENCES[reference], 0
        self.data, self.pairs = root / "data", root / "pairs"
        level = json.loads((model / "vae" / "config.json").read_text())["block_out_channels"]
        sample = json.loads((model / "unet" / "config.json").read_text())["sample_size"]
        self.side = sample * 2 ** (len(level) - 1)

    def prepare(self) -> None:
        """Import the images and pair them."""
        pool, home = self.root / "pool", self.root / "home"
        words = ("-m", "tastemaker")
        run(*words, "import", str(pool), f"comparisons={self.data}", home=home)
        run(*words, "pair", str(pool), str(self.pairs), "rule.scorer=human", home=home)

    def ours(self) -> None:
        """`tastemaker train`."""
        shutil.rmtree(self.pairs / ENCODED, ignore_errors=True)
        place = self.place()
        run(*self.train(place), home=place)

    def train(self, place: Path) -> list[str]:
        """Words of `tastemaker train`."""
        return [
            *("-m", "tastemaker", "train", str(self.pairs), str(place / "policy")),
            f"model={self.model}",
            f"loss={{name: dpo, beta: {BETA}}}",
            f"learning_rate={RATE}",
            f"max_grad_norm={CLIP}",
            f"max_steps={self.steps}",
            f"batch_size={self.batch}",
            "lora.r=8",
            "report_to=null",
            *self.more,
        ]

    def plain(self) -> None:
        """plain.py."""
        place = self.place()
        words = (str(HERE / "plain.py"), "--model", str(self.model), "--data", str(self.data))
        sizes = ("--steps", str(self.steps), "--batch", str(self.batch))
        run(*words, *sizes, "--output", str(place), home=place)

    def place(self) -> Path:
        """A new folder."""
        self.calls += 1
        return self.root / f"call-{self.calls}"


def measure(options: argparse.Namespace, root: Path) -> dict[str, Any]:
    """Time both commands on one model."""
    model = Path(resolve("nano"))
    if options.model != "nano":
        model = root / "model"
        FAMILIES[options.model]().save_pretrained(model)
    commands = Commands(model, root, options.steps, options.batch, options.reference)
    write_data(commands.data, commands.side)
    prepared = seconds(CPU, commands.prepare)
    works = {"ours": commands.ours, "plain": commands.plain}
    took = interleaved(CPU, works, options.rounds)
    return {
        "steps": options.steps,
        "pairs": options.batch,
        "rounds": options.rounds,
        "environment": environment(),
        "import_seconds": prepared,
        "seconds": {name: spread(values) for name, values in took.items()},
        "over_plain": ratios(took["plain"], took["ours"]),
    }


def as_table(results: dict[str, Any]) -> str:
    """Write all rows as Markdown."""
    lines = [
        "| model | steps x pairs | ours, s | plain, s | over plain | import before, s |",
        "|---|---|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {name} | {row['steps']} x {row['pairs']} | {between(row['seconds']['ours'])}"
        f" | {between(row['seconds']['plain'])} | {between(row['over_plain'])}"
        f" | {row['import_seconds']:.1f} |"
        for name, row in results.items()
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Time both, and write the results."""
    parser = comparison_parser(__doc__, ("nano", "portraits", "tiny"), 3)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--reference", choices=REFERENCES, default="live", help="of ours")
    options = parser.parse_args()
    cached = ", reference cached" * (options.reference == "cached")
    name = f"{options.model}, {options.steps} steps{cached}"
    add_measured(options, "whole.json", name, measure, as_table)


if __name__ == "__main__":
    main()
