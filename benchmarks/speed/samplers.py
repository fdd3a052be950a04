"""Samplers, steps and precisions of `nano`: scores beside those of 50 DDIM steps in float32.

    python benchmarks/speed/samplers.py WORK > benchmarks/speed/samplers.md

Draws one image for each of 128 prompts in every way, from the same seeds, and scores all by the
preference scorer and by the judge, which was fitted apart. Differences to the first row are paired
by prompt, with 95 % intervals clustered by prompt. What is in WORK is not drawn again; seconds are
those of what was drawn, with the loading of the model. bf16 is drawn in where the machine is fast
in it.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from tastemaker.config.sections import GenerateConfig, ScoreConfig
from tastemaker.core.hardware import fast_dtype
from tastemaker.evaluation.score import score
from tastemaker.metrics.clusters import mean_and_stderr
from tastemaker.sampling.generate import generate
from tastemaker.storage.pool import Pool

PROMPTS = 128
SCORERS = ("nano_preference", "nano_judge")
DDIM, DPM, UNIPC = "DDIMScheduler", "DPMSolverMultistepScheduler", "UniPCMultistepScheduler"
WAYS = (
    (DDIM, 50, "fp32", "fp32"),
    (DPM, 20, "fp32", "fp32"),
    (UNIPC, 20, "fp32", "fp32"),
    (DDIM, 12, "fp32", "fp32"),
    (DDIM, 6, "fp32", "fp32"),
    (DPM, 6, "fp32", "fp32"),
    (UNIPC, 6, "fp32", "fp32"),
    (DDIM, 50, "fp32", "bf16"),
    *([(DDIM, 6, "bf16", "fp32")] if fast_dtype("auto") == "bf16" else []),
)
"""Sampler, steps, precision of drawing and of scoring; the first is compared with the others."""


def drawn(work: Path, scheduler: str, steps: int, dtype: str, scored: str) -> tuple[Pool, float]:
    """Draw and score a pool; returns it with the seconds that drawing took."""
    config = GenerateConfig(
        model="nano",
        prompts={"name": "nano_test", "number": PROMPTS},
        num_candidates=1,
        num_inference_steps=steps,
        guidance_scale=2.5,
        scheduler=scheduler,
        batch_size=64,
        dtype=dtype,
    )
    began = time.perf_counter()
    folder = generate(config, work / f"{scheduler}-{steps}-{dtype}")
    seconds = time.perf_counter() - began
    scorers = tuple({"name": name, "label": f"{name}_{scored}"} for name in SCORERS)
    score(ScoreConfig(scorers=scorers, dtype=scored), folder)
    return Pool(folder), seconds


def cells(pool: Pool, scored: str, first: Pool) -> list[str]:
    """Mean score by each scorer, and its paired difference to the first pool's."""
    ours, theirs = pool.scores(), first.scores()
    found = []
    for scorer in SCORERS:
        values = ours[f"{scorer}_{scored}"].to_pylist()
        base = theirs[f"{scorer}_{WAYS[0][-1]}"].to_pylist()
        gains = [one - other for one, other in zip(values, base, strict=True)]
        mean, error = mean_and_stderr(gains, ours["prompt_id"].to_pylist())
        low, high = mean - 1.96 * error, mean + 1.96 * error
        found += [f"{sum(values) / len(values):.3f}", f"{mean:+.3f} [{low:+.3f}, {high:+.3f}]"]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path, help="folder for the pools")
    work = parser.parse_args().work
    print(f"`nano`, {PROMPTS} prompts, one image each, guidance 2.5; differences to the first row")
    print("paired by prompt, 95 % intervals. `python benchmarks/speed/samplers.py WORK`\n")
    head = ["sampler", "steps", "drawn in", "scored in", "seconds", "preference", "difference"]
    print(f"| {' | '.join([*head, 'judge', 'difference'])} |")
    print("|---|---|---|---|---|---|---|---|---|")
    first = None
    for scheduler, steps, dtype, scored in WAYS:
        pool, seconds = drawn(work, scheduler, steps, dtype, scored)
        first = first or pool
        row = [scheduler, str(steps), dtype, scored, f"{seconds:.0f}", *cells(pool, scored, first)]
        print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
