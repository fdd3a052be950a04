"""Seconds until commands on nano begin to work, beside those of importing the libraries.

    python benchmarks/speed/start.py --rounds 5

`libraries` imports torch and the classes of diffusers that nano needs, and loads its weights, in a
process of its own; `torch` imports torch alone. `first step` is `tastemaker train` until its bar of
steps appears, on pairs that are encoded; `finished` the same command when all is done. In turn;
writes start.json and start.md beside this file.
"""

import argparse
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from rows import add_row
from whole import CPU, HERE, Commands, environment_in, run, write_data

from tastemaker.backbones.loading import resolve
from tastemaker.core.hardware import environment
from tastemaker.profiling.rows import between
from tastemaker.profiling.timing import interleaved, spread

LIBRARIES = """
import sys
import torch
from diffusers import StableDiffusionPipeline
StableDiffusionPipeline.from_pretrained(sys.argv[1], safety_checker=None)
"""
BAR = "train:"


def first_step(commands: Commands) -> None:
    """Run `tastemaker train` until its first step begins."""
    place = commands.place()
    with subprocess.Popen(
        [sys.executable, *commands.train(place)],
        env=environment_in(place),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        said = ""
        while BAR not in said:
            if not (character := process.stderr.read(1)):
                raise SystemExit(f"train ended before its first step:\n{said[-2000:]}")
            said += character
        process.kill()


def measure(rounds: int, root: Path) -> dict[str, Any]:
    """Time all commands."""
    model = resolve("nano")
    commands = Commands(Path(model), root, steps=1, batch=16)
    write_data(commands.data, commands.side)
    commands.prepare()
    done = commands.place()
    works = {
        "torch": partial(run, "-c", "import torch", home=root),
        "libraries": partial(run, "-c", LIBRARIES, model, home=root),
        "first step": partial(first_step, commands),
        "doctor demo": partial(run, "-m", "tastemaker", "doctor", "demo", home=root),
        "finished": partial(run, *commands.train(done), home=done),
    }
    works["finished"]()  # the first time it encodes and trains
    took = interleaved(CPU, works, rounds)
    return {
        "environment": environment(),
        "rounds": rounds,
        "seconds": {name: spread(values) for name, values in took.items()},
        "over_libraries": {
            name: spread([a - b for a, b in zip(values, took["libraries"], strict=True)])
            for name, values in took.items()
        },
    }


def as_table(results: dict[str, Any]) -> str:
    """Write all rows as Markdown."""
    lines = ["| model | command | s | s after the libraries |", "|---|---|---:|---:|"]
    lines += [
        f"| {name} | {command} | {between(value)} | {between(row['over_libraries'][command])} |"
        for name, row in results.items()
        for command, value in row["seconds"].items()
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Time all commands, and write the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path, default=HERE, help="folder of start.json")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        row = measure(options.rounds, Path(folder))
    add_row(options.output / "start.json", "nano", row, as_table)


if __name__ == "__main__":
    main()
