"""A training step of ours, the floor, and the step of a plain script, in turn.

    python benchmarks/speed/compare.py --model nano
    python benchmarks/speed/compare.py --model portraits --rounds 5
    python benchmarks/speed/compare.py --model sd15 --pixels 256 --batch 1 --rounds 3 --dtype bf16

First both do some steps on equal draws and from equal adapters: in fp32 their losses must agree to
1e-5. Then each step is timed in turn, there and back. The floor is forward and backward pass of the
policy alone on a batch that is there. The plain step is that of plain.py. Writes its row
into step.json and step.md beside this file.
"""

import argparse
import contextlib
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline
from models import FAMILIES
from plain import BETA, CLIP, RATE, PlainTraining
from rows import add_measured, comparison_parser

from tastemaker.backbones.loading import resolve
from tastemaker.config.training import TrainConfig
from tastemaker.core.hardware import environment, torch_dtype
from tastemaker.profiling.rows import between
from tastemaker.profiling.timing import interleaved, ratios, spread
from tastemaker.profiling.training import random_pairs, single, steps_of
from tastemaker.profiling.yardsticks import Floor
from tastemaker.storage.images import to_pixels
from tastemaker.training.preference.trainer import PreferenceTrainer

EQUAL_STEPS, TOLERANCE = 4, 1e-5
ROWS: dict[str, dict[str, Any]] = {"live": {}, "cached": {"reference_draws": 2}}
"""Options of our steps by their reference."""


def pipeline_of(model: str, dtype: str) -> Any:
    """nano, or a family with random weights, the same at every call."""
    torch.manual_seed(0)
    if model == "nano":
        loaded = DiffusionPipeline.from_pretrained(resolve("nano"), dtype=torch_dtype(dtype))
    else:
        loaded = FAMILIES[model](dtype=dtype)
    return loaded.to("cuda" if torch.cuda.is_available() else "cpu")


def trainer_of(model: str, rows: list[Any], folder: Path, **options: Any) -> PreferenceTrainer:
    """Our training, with the plain script's constants."""
    config = TrainConfig(
        model=model,
        loss={"name": "dpo", "beta": BETA},
        lora={"r": 8},
        batch_size=len(rows),
        learning_rate=RATE,
        max_grad_norm=CLIP,
        sample_posterior=False,
        **options,
    )
    trainer = PreferenceTrainer(
        pipeline_of(model, config.dtype), rows, single(config), output=folder
    )
    trainer.begin()
    return trainer


def plain_batch(rows: list[Any], tokenizer: Any) -> dict[str, torch.Tensor]:
    """The pairs as plain.py's loader gives them."""
    sides = [to_pixels([row[side] for row in rows]) for side in ("chosen", "rejected")]
    tokens = tokenizer(
        [row["prompt"] for row in rows],
        padding="max_length",
        truncation=True,
        max_length=tokenizer.model_max_length,
        return_tensors="pt",
    )
    return {"pixels": torch.stack(sides, 1), "tokens": tokens["input_ids"]}


def largest_difference(
    trainer: PreferenceTrainer, plain: PlainTraining, batch: dict[str, torch.Tensor]
) -> float:
    """Do steps of both on equal draws, each from the adapters that ours have come to.

    Returns:
        The largest difference of their losses.
    """
    pairs, worst = len(batch["pixels"]), 0.0
    for _ in range(EQUAL_STEPS):
        for own, other in zip(trainer.state.weights.values(), plain.weights, strict=True):
            other.data.copy_(own.detach())
        drawn = trainer.batch(trainer.done, pairs=range(pairs))
        noise = noise_of(trainer, drawn)[:pairs]
        ours = trainer.train_step(drawn)["loss"]
        theirs = plain.step(batch, (noise, drawn.timesteps[:pairs]))
        worst = max(worst, abs(ours - theirs))
    return worst


def noise_of(trainer: PreferenceTrainer, batch: Any) -> torch.Tensor:
    """The noise in a batch: the target, or `sigma x_t + alpha v` where v is predicted."""
    schedule = trainer.backbone.noise_schedule
    if schedule.prediction != "v_prediction":
        target: torch.Tensor = batch.target
        return target
    alpha, sigma = (
        each[batch.timesteps.cpu()].to(batch.target).view(-1, 1, 1, 1)
        for each in (schedule.alpha, schedule.sigma)
    )
    return sigma * batch.noisy_latents + alpha * batch.target


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Compare on one model."""
    given = pipeline_of(options.model, options.dtype)
    side = options.pixels or given.unet.config.sample_size * given.vae_scale_factor
    rows = random_pairs(options.batch, (side, side))
    plain, batch = PlainTraining(given), plain_batch(rows, given.tokenizer)
    trainers = {
        name: trainer_of(options.model, rows, folder / name, dtype=options.dtype, **more)
        for name, more in ROWS.items()
        if name in options.rows
    }
    first = next(iter(trainers.values()))
    difference = largest_difference(first, plain, batch)
    if options.dtype == "fp32" and not difference <= TOLERANCE:
        raise SystemExit(f"losses on equal draws differ by {difference:.2g}")
    with contextlib.ExitStack() as stack:
        works = {name: stack.enter_context(steps_of(each)) for name, each in trainers.items()}
        works |= {"floor": Floor(first).step, "plain": partial(plain.step, batch)}
        for work in works.values():
            work()
        took = interleaved(first.accelerator.device, works, options.rounds)
    return {
        "pixels": side,
        "pairs": options.batch,
        "rounds": options.rounds,
        "loss_difference": difference,
        "environment": environment(),
        "seconds": {name: spread(values) for name, values in took.items()},
        "of_floor": {name: ratios(took["floor"], took[name]) for name in trainers},
        "over_plain": {name: ratios(took["plain"], took[name]) for name in trainers},
    }


def as_table(results: dict[str, Any]) -> str:
    """Write all rows as Markdown."""
    names = ("model", "pairs x pixels", "reference", "s per step", "of the floor")
    lines = [
        f"| {' | '.join(names)} | over the plain step | losses differ by | CPU |",
        "|---|---|---|---:|---:|---:|---:|---|",
    ]
    for name, row in results.items():
        lines += [
            f"| {name} | {row['pairs']} x {row['pixels']} | {ours}"
            f" | {between(row['seconds'][ours])} | {between(row['of_floor'][ours])}"
            f" | {between(row['over_plain'][ours])} | {row['loss_difference']:.1g}"
            f" | {row['environment']['processor']} |"
            for ours in row["of_floor"]
        ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Compare, and write the results."""
    parser = comparison_parser(__doc__, ("nano", "portraits", "sd15", "tiny"), 7)
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--pixels", type=int, help="side of the pictures; default: the model's")
    parser.add_argument("--dtype", choices=("fp32", "bf16"), default="fp32")
    options = parser.parse_args()
    add_measured(options, "step.json", f"{options.model}, {options.dtype}", measure, as_table)


if __name__ == "__main__":
    main()
