"""Seconds of one evaluation of four LoRA policies over one base, and of four evaluations of one.

    python benchmarks/speed/policies.py                        # writes its row of policies.md
    python benchmarks/speed/policies.py --model portraits

In one process, ways in turn: all four policies in one call of `evaluate`; four calls in one folder,
which keeps the base's images; four calls in folders of their own, each drawing the base again. The
LoRAs are random, of rank 8. Under two minutes on two cores with nano.
"""

import argparse
import contextlib
import itertools
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers.utils import logging
from models import FAMILIES
from rows import add_measured

from tastemaker import evaluate
from tastemaker.backbones import load_backbone
from tastemaker.backbones.loading import resolve
from tastemaker.backbones.lora.adapters import add_lora, trainable
from tastemaker.config.evaluation import EvaluateConfig
from tastemaker.config.training import LoraConfig
from tastemaker.core.hardware import environment
from tastemaker.profiling.rows import between
from tastemaker.profiling.timing import interleaved, ratios, spread
from tastemaker.training.saving import save_lora

HERE = Path(__file__).parent
CPU = torch.device("cpu")
POLICIES = 4
PROMPTS = 4
WAYS = {
    "together": "four policies in one evaluation",
    "one folder": "four evaluations in one folder",
    "own folders": "four evaluations in folders of their own",
}


def policies(base: str, root: Path) -> dict[str, Path]:
    """Write random LoRAs on a model; their folders by name."""
    folders = {f"policy_{number}": root / f"policy_{number}" for number in range(POLICIES)}
    for number, folder in enumerate(folders.values()):
        backbone = load_backbone(base, device="cpu")
        add_lora(backbone.denoiser, LoraConfig(r=8), seed=number)
        generator = torch.Generator().manual_seed(number)
        for weight in trainable(backbone.denoiser).values():
            weight.data = 0.01 * torch.randn(weight.shape, generator=generator)
        save_lora(backbone, base, folder)
    return folders


def ways(config: EvaluateConfig, judged: dict[str, Path], root: Path) -> dict[str, Any]:
    """Functions that evaluate all policies, at every call in new folders."""
    calls = itertools.count()

    def call(groups: list[tuple[str, dict[str, Path]]]) -> None:
        place = root / f"call-{next(calls)}"
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere):
            for folder, models in groups:
                report = place / f"{next(iter(models))}.json"
                evaluate(config, models, place / folder, report)

    single = [{name: folder} for name, folder in judged.items()]
    found: dict[str, Callable[[], None]] = {
        "together": partial(call, [("all", judged)]),
        "one folder": partial(call, [("all", each) for each in single]),
        "own folders": partial(call, [(next(iter(each)), each) for each in single]),
    }
    return found


def measure(options: argparse.Namespace, root: Path) -> dict[str, Any]:
    """Time all ways on one model."""
    base = resolve("nano")
    if options.model != "nano":
        base = str(root / "model")
        FAMILIES[options.model]().save_pretrained(base)
    config = EvaluateConfig(
        base=base,
        prompts={"name": "nano_test", "number": PROMPTS},
        scorers=("nano_preference",),
        num_inference_steps=6,
        batch_size=PROMPTS,
        device="cpu",
    )
    works = ways(config, policies(base, root), root)
    works["together"]()  # imports
    took = interleaved(CPU, works, options.rounds)
    return {
        "environment": environment(),
        "rounds": options.rounds,
        "images": PROMPTS,
        "seconds": {name: spread(values) for name, values in took.items()},
        "over_together": {name: ratios(took[name], took["together"]) for name in took},
    }


def as_table(results: dict[str, Any]) -> str:
    """Write all rows as Markdown."""
    lines = [
        "| model | images per policy | way | s | over one evaluation |",
        "|---|---:|---|---:|---:|",
    ]
    lines += [
        f"| {name} | {row['images']} | {text} | {between(row['seconds'][way])}"
        f" | {between(row['over_together'][way])} |"
        for name, row in results.items()
        for way, text in WAYS.items()
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Time all ways, and write the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", choices=("nano", "portraits", "tiny"), default="nano")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path, default=HERE, help="folder of policies.json")
    options = parser.parse_args()
    logging.set_verbosity_error()  # LoRAs that leave the text encoder alone
    add_measured(options, "policies.json", options.model, measure, as_table)


if __name__ == "__main__":
    main()
