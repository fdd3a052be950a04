"""Images per second: a diffusers pipeline called in three ways, and a pool drawn by this package.

    python benchmarks/speed/generation.py [--model nano] [--steps 6] [--rounds 3] [--device cpu]

Each round draws the same 16 prompts x 4 seeds to PNG in memory by (a) one call of the pipeline per
image, (b) one per prompt with a batch of its four draws, (c) one for all 64 images, (d) the sampler
of `tastemaker generate` with batches of 64. Models are loaded before; ways take turns. Prints a
table in Markdown: median and range of images/s, of (d) over each way round by round, and how many
images are equal to (d)'s, pixel by pixel.
"""

from __future__ import annotations

import argparse
import io
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from diffusers import DDIMScheduler
from PIL import Image

from tastemaker.backbones import load_backbone
from tastemaker.config.sections import GenerateConfig
from tastemaker.datasets.prompts.sources import load_prompts
from tastemaker.sampling.loading import load_policy
from tastemaker.sampling.plans import plan
from tastemaker.sampling.sampler import PoolSampler, from_noise

PROMPTS, DRAWS, GUIDANCE = 16, 4, 2.5
WAYS = {
    "a": "pipeline, one call per image",
    "b": "pipeline, one call per prompt with its four draws",
    "c": "pipeline, one call for all images",
    "d": "tastemaker",
}


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def ways(model: str, steps: int, device: str) -> dict[str, Callable[[], list[bytes]]]:
    """Functions that draw all images, in one order."""
    config = GenerateConfig(
        model=model,
        prompts={"name": "nano_test", "number": PROMPTS},
        num_candidates=DRAWS,
        num_inference_steps=steps,
        guidance_scale=GUIDANCE,
        scheduler="DDIMScheduler",
        batch_size=PROMPTS * DRAWS,
        keep_latents=False,
        device=device,
    )
    assert config.prompts is not None
    planned = plan(load_prompts(config.prompts), DRAWS, seed=0)
    items = planned.shard(0, len(planned))
    pipeline = load_backbone(model, device=device, scheduler=DDIMScheduler.__name__).pipeline
    sampler = PoolSampler(config, load_policy(config, model), False, from_noise(config))

    def called(size: int) -> list[bytes]:
        made = []
        for start in range(0, len(items), size):
            part = items[start : start + size]
            images = pipeline(
                [item.prompt for item in part],
                generator=[torch.Generator().manual_seed(item.seed) for item in part],
                num_inference_steps=steps,
                guidance_scale=GUIDANCE,
            ).images
            made += [png(image) for image in images]
        return made

    def ours() -> list[bytes]:
        rows: dict = {}
        for _ in sampler.fill(rows, items):
            pass
        return [rows[item]["image"]["bytes"] for item in items]

    return {
        "a": lambda: called(1),
        "b": lambda: called(DRAWS),
        "c": lambda: called(len(items)),
        "d": ours,
    }


def pixels(images: list[bytes]) -> list[np.ndarray]:
    return [np.asarray(Image.open(io.BytesIO(each))).astype(int) for each in images]


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    drawers = ways(given.model, given.steps, given.device)
    images = {way: pixels(draw()) for way, draw in drawers.items()}  # also warms all up
    rates: dict[str, list[float]] = {way: [] for way in drawers}
    for _ in range(given.rounds):
        for way, draw in drawers.items():
            began = time.perf_counter()
            rates[way].append(len(draw()) / (time.perf_counter() - began))
    print(f"{given.model}, {given.steps} DDIM steps, guidance {GUIDANCE}, {PROMPTS} prompts x")
    print(f"{DRAWS} draws, {torch.get_num_threads()} threads, {given.rounds} rounds in turn\n")
    print("| way | images/s | tastemaker over it | equal images | largest difference of 255 |")
    print("|---|---|---|---|---|")
    for way, name in WAYS.items():
        ratios = [ours / theirs for ours, theirs in zip(rates["d"], rates[way], strict=True)]
        apart = [abs(x - y).max() for x, y in zip(images["d"], images[way], strict=True)]
        equal = sum(each == 0 for each in apart)
        print(
            f"| {name} | {spread(rates[way])} | {spread(ratios)} | {equal} of {len(apart)}"
            f" | {max(apart)} |"
        )


if __name__ == "__main__":
    main()
