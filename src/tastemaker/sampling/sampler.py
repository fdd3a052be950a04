"""Sample a pool of candidates: prompts x draws, in shards that are the unit of resume."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from tastemaker.backbones.base import Backbone
from tastemaker.backbones.conditioning import stack
from tastemaker.backbones.loading import load_backbone
from tastemaker.backbones.lora.switches import switch_policy
from tastemaker.backbones.sampling_batch import SamplingBatch
from tastemaker.config.sections import SamplingConfig
from tastemaker.core.batching import batched
from tastemaker.core.errors import TastemakerError
from tastemaker.core.hardware import processes
from tastemaker.core.seeding import keyed_seed
from tastemaker.storage.candidates import candidates_made, write_candidates
from tastemaker.storage.files import config_key
from tastemaker.storage.images import encode_png
from tastemaker.storage.pool import Pool
from tastemaker.storage.unfinished import saved_when_stopped

HOW = {
    "num_inference_steps",
    "guidance_scale",
    "negative_prompt",
    "scheduler",
    "adapter",
    "height",
    "width",
}
"""Sampling options that change the picture of a prompt, model and seed."""


@dataclass(frozen=True)
class Item:
    """One candidate to sample.

    Args:
        prompt: Its prompt.
        seed: Seed of its noise.
        source_id: The real image that it belongs to; empty where there is none.
        timestep: Start of its reconstruction; None for a sample from noise.
        size: Height and width in pixels; None for the configuration's.
    """

    prompt: str
    seed: int
    source_id: str = ""
    timestep: int | None = None
    size: tuple[int, int] | None = None


@dataclass(frozen=True)
class RealImage:
    """A real image that candidates are sampled for.

    Args:
        candidate_id: Its id.
        caption: Its caption.
        size: Height and width in pixels.
    """

    candidate_id: str
    caption: str
    size: tuple[int, int]


Draw = Callable[[Backbone, Sequence[Item], SamplingBatch], torch.Tensor]
"""Function from items and their batch to final latents, one row per item."""


Rows = dict[Item, dict[str, Any]]
"""Rows of a pool by what they show."""

MOST_IMAGES = 4_000_000
"""Most images of a pool: all are listed before the first is sampled."""


def _refuse_too_many(items: int, each: int) -> None:
    if items * each > MOST_IMAGES:
        raise TastemakerError(
            f"{each} images for each of {items} prompts or real images are more than the"
            f" {MOST_IMAGES} that a pool may have; ask for fewer, or cut the prompts into parts."
        )


def plan(prompts: Sequence[str], draws: int, seed: int) -> list[Item]:
    """List the candidates of a pool, prompt by prompt.

    An image's seed depends on the run's seed, its prompt and its draw alone: adding prompts or
    draws leaves the other images as they are.

    Args:
        prompts: Unique prompts.
        draws: Images per prompt.
        seed: The run's seed.

    Returns:
        `len(prompts) * draws` items.

    Raises:
        TastemakerError: They are more than `MOST_IMAGES`.
    """
    _refuse_too_many(len(prompts), draws)
    return [
        Item(prompt, keyed_seed(seed, "image", prompt, draw))
        for prompt in prompts
        for draw in range(draws)
    ]


def plan_items(real: Sequence[RealImage], draws: int, seed: int) -> list[Item]:
    """List candidates for the captions of real images, image by image, each of its image's size.

    Args:
        real: The images.
        draws: Candidates per image; images of equal captions have candidates of their own.
        seed: The run's seed.

    Returns:
        `len(real) * draws` items.

    Raises:
        TastemakerError: They are more than `MOST_IMAGES`.
    """
    _refuse_too_many(len(real), draws)
    return [
        Item(
            each.caption,
            keyed_seed(seed, "image", each.candidate_id, each.caption, draw),
            each.candidate_id,
            size=each.size,
        )
        for each in real
        for draw in range(draws)
    ]


def plan_reconstructions(
    real: Sequence[RealImage], timesteps: Sequence[int], seed: int
) -> list[Item]:
    """List the reconstructions of real images, timestep by timestep.

    Args:
        real: The images.
        timesteps: Timesteps that they start at.
        seed: The run's seed; the noise is keyed by image and timestep.

    Returns:
        `len(real) * len(timesteps)` items.
    """
    return [
        Item(
            each.caption,
            keyed_seed(seed, "reconstruct", each.candidate_id, timestep),
            each.candidate_id,
            timestep,
            each.size,
        )
        for timestep in timesteps
        for each in real
    ]


def sample_pool(
    config: SamplingConfig,
    model: str,
    items: Sequence[Item],
    folder: Path,
    *,
    keep_latents: bool,
    shard_size: int,
    draw: Draw | None = None,
) -> int:
    """Sample what is missing of a pool.

    Shards are independent: each is cut into the same batches whether or not others exist, so that
    a pool made in two goes, or by several processes, has the bytes of one made in one go.

    Args:
        config: Sampling options.
        model: Name, hub id or folder.
        items: Candidates to sample, from `plan`.
        folder: The pool's folder.
        keep_latents: Store final latents beside the pictures.
        shard_size: Candidates per shard.
        draw: Function from items to latents; None samples from noise.

    Returns:
        Number of images that this process sampled.

    Raises:
        TastemakerError: The model cannot be loaded, or the disk is full.
    """
    pool = Pool(folder)
    state = processes()
    shards = list(enumerate(batched(items, shard_size)))
    missing = [(i, part) for i, part in shards if not pool.shard(i).is_file()]
    mine = [(i, part) for i, part in missing if i % state.num_processes == state.process_index]
    if mine:
        texts = {item.prompt for _, part in mine for item in part}
        draw_batch = _batch_drawer(config, model, texts, keep_latents, draw or from_noise(config))
        number = sum(len(part) for _, part in mine)
        with tqdm(total=number, desc=f"generate {folder.name}", unit="images") as bar:
            for index, part in mine:
                batches = list(_batches(part, config.batch_size))
                rows = _drawn_before(pool.unfinished(index), batches)
                with saved_when_stopped(pool.unfinished(index), rows, _write):
                    for batch in batches:
                        if batch[0] not in rows:
                            rows |= draw_batch(batch)
                        bar.update(len(batch))
                    write_candidates(pool.shard(index), [rows[item] for item in part])
    state.wait_for_everyone()
    return sum(len(part) for _, part in mine)


def from_noise(config: SamplingConfig) -> Draw:
    """Sample every item from noise of its own seed.

    Args:
        config: Size; None for an item's own.

    Returns:
        The function that `sample_pool` samples with.
    """

    def draw(backbone: Backbone, items: Sequence[Item], batch: SamplingBatch) -> torch.Tensor:
        height, width = items[0].size or (None, None)
        return backbone.sample(batch, height=config.height or height, width=config.width or width)

    return draw


def _batch_drawer(
    config: SamplingConfig, model: str, texts: set[str], keep_latents: bool, draw: Draw
) -> Callable[[Sequence[Item]], Rows]:
    """Load a model and return the function that samples a batch of items as rows of a pool."""
    backbone = load_backbone(
        model, device=config.device, dtype=config.dtype, scheduler=config.scheduler
    )
    scale = backbone.guidance_scale(config.guidance_scale)
    config = config.model_copy(update={"guidance_scale": scale})
    switch_policy(backbone, config.adapter)
    embeddings = {text: backbone.encode_prompts([text]) for text in sorted(texts)}
    negative = backbone.encode_negative(config.negative_prompt)
    # Pools of one model and seed that were drawn otherwise are other candidates.
    how = config.model_dump(mode="json", include=HOW)

    def draw_batch(items: Sequence[Item]) -> Rows:
        batch = SamplingBatch(
            stack([embeddings[item.prompt] for item in items]),
            stack([negative] * len(items)),
            [item.seed for item in items],
            num_inference_steps=config.num_inference_steps,
            guidance_scale=scale,
        )
        latents = draw(backbone, items, batch)
        images = backbone.vae.decode_images(latents)
        rows: Rows = {}
        for item, image, latent in zip(items, images, latents, strict=True):
            rows[item] = _row(item, backbone.name, how, encode_png(image))
            if keep_latents:
                rows[item]["latents"] = latent.float().cpu().contiguous().numpy().tobytes()
                rows[item]["latents_shape"] = list(latent.shape)
        return rows

    return draw_batch


def _drawn_before(file: Path, batches: Sequence[Sequence[Item]]) -> Rows:
    """Rows of a shard's first batches that a stopped command left; empty where it left none."""
    return dict(zip(chain(*batches), candidates_made(file), strict=False))


def _write(file: Path, rows: Rows) -> None:
    write_candidates(file, list(rows.values()))


def _batches(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    """Batches of images of one size each."""
    for shape in dict.fromkeys(item.size for item in items):
        yield from batched([item for item in items if item.size == shape], size)


def _row(item: Item, model: str, how: dict[str, Any], image: bytes) -> dict[str, Any]:
    prompt_id = config_key(item.prompt)
    return {
        "candidate_id": f"{prompt_id}-{config_key(model, item.seed, how)}",
        "prompt_id": prompt_id,
        "prompt": item.prompt,
        "seed": item.seed,
        "source": "generated" if item.timestep is None else "reconstruction",
        "source_id": item.source_id,
        "timestep": item.timestep,
        "model": model,
        "image": {"bytes": image, "path": None},
    }
