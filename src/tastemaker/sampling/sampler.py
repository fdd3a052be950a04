"""Sample a pool of candidates: prompts x draws, in shards that are the unit of resume."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from tqdm import tqdm

from tastemaker.backbones.autoencoder import to_images
from tastemaker.backbones.base import Backbone
from tastemaker.backbones.conditioning import IMAGE_EMBEDS, select, stack
from tastemaker.backbones.ip_adapter import encode_pictures
from tastemaker.backbones.sampling_batch import SamplingBatch
from tastemaker.config.sections import SamplingConfig
from tastemaker.core.batching import batched, overlapped
from tastemaker.core.hardware import processes
from tastemaker.sampling.loading import PolicyLoader, load_policy
from tastemaker.sampling.plans import Item, Plan
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

PICTURE = {"ip_adapter", "ip_adapter_image", "ip_adapter_scale"}
"""Those of an IP-Adapter."""


Draw = Callable[[Backbone, Sequence[Item], SamplingBatch], torch.Tensor]
"""Function from items and their batch to final latents, or whole trajectories, one row per item."""


Rows = dict[Item, dict[str, Any]]
"""Rows of a pool by what they show."""


class Drawn(NamedTuple):
    """A sampled batch: its items, final latents, decoded pixels, and trajectories or None."""

    items: Sequence[Item]
    latents: torch.Tensor
    pixels: torch.Tensor
    paths: torch.Tensor | None


def sample_pool(
    config: SamplingConfig,
    model: str,
    plan: Plan,
    folder: Path,
    *,
    keep_latents: bool,
    shard_size: int,
    draw: Draw | None = None,
    loader: PolicyLoader | None = None,
) -> None:
    """Sample what is missing of a pool.

    Shards are independent: each is cut into the same batches whether or not others exist, so that
    a pool made in two goes, or by several processes, has the bytes of one made in one go.

    Args:
        config: Sampling options.
        model: Name, hub id or folder.
        plan: Candidates to sample.
        folder: The pool's folder.
        keep_latents: Store final latents beside the pictures.
        shard_size: Candidates per shard.
        draw: Function from items to latents; None samples from noise.
        loader: Of the models of several pools; None loads this one alone.

    Raises:
        TastemakerError: The model cannot be loaded, or the disk is full.
    """
    pool = Pool(folder)
    state = processes()
    own = range(state.process_index, plan.shards(shard_size), state.num_processes)
    mine = [index for index in own if not pool.shard(index).is_file()]
    if mine:
        number = sum(min(shard_size, len(plan) - index * shard_size) for index in mine)
        backbone = (loader or load_policy)(config, model)
        sampler = PoolSampler(config, backbone, keep_latents, draw or from_noise(config))
        with tqdm(total=number, desc=f"generate {folder.name}", unit="images") as bar:
            for index in mine:
                items = plan.shard(index, shard_size)
                rows = _drawn_before(pool.unfinished(index), items)
                bar.update(len(rows))
                with saved_when_stopped(pool.unfinished(index), rows, _write):
                    for made in sampler.fill(rows, items):
                        bar.update(made)
                    write_candidates(pool.shard(index), [rows[item] for item in items])
    state.wait_for_everyone()


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


class PoolSampler:
    """A loaded model that samples batches of items as rows of a pool, one shard's after another's.

    Args:
        config: Sampling options.
        backbone: The model, from `load_policy` or a `PolicyLoader`.
        keep_latents: Store final latents beside the pictures.
        draw: Function from items to latents.
    """

    def __init__(
        self, config: SamplingConfig, backbone: Backbone, keep_latents: bool, draw: Draw
    ) -> None:
        self.backbone = backbone
        self.scale = self.backbone.guidance_scale(config.guidance_scale)
        self.config = config.model_copy(update={"guidance_scale": self.scale})
        self.keep_latents, self.latents = keep_latents, draw
        self.negative = self.backbone.encode_negative(config.negative_prompt)
        # Pools of one model and seed that were drawn otherwise are other candidates.
        # Candidates keep the ids that they had before these options.
        off = {name for name in ("lan", "negative") if not getattr(config.adapter, name)}
        how = HOW | PICTURE if config.ip_adapter else HOW
        self.how = self.config.model_dump(mode="json", include=how, exclude={"adapter": off})

    def fill(self, rows: Rows, items: Sequence[Item]) -> Iterator[int]:
        """Add the rows that a shard lacks, batch by batch; yields the images of each."""
        self._embed(items)
        batches = [each for each in _batches(items, self.config.batch_size) if each[0] not in rows]
        # On a CPU threads would take from the network what they encode, and more.
        threads = 0 if self.backbone.device.type == "cpu" else 2
        for made in overlapped(self._rows, map(self._draw, batches), threads):
            rows |= made
            yield len(made)

    def _embed(self, items: Sequence[Item]) -> None:
        """Encode the prompts and pictures of a shard, which replace those of the one before."""
        texts = list(dict.fromkeys(item.prompt for item in items))
        self.embeddings = self.backbone.encode_prompts(texts)
        self.places = {text: i for i, text in enumerate(texts)}
        files = dict.fromkeys(item.picture for item in items if item.picture is not None)
        self.pictures = encode_pictures(self.backbone, list(files))

    @torch.no_grad()
    def _draw(self, items: Sequence[Item]) -> Drawn:
        """Sample and decode a batch of the shard."""
        given = select(self.embeddings, [self.places[item.prompt] for item in items])
        without = stack([self.negative] * len(items))
        if self.pictures:
            pictures = [self.pictures[item.picture] for item in items if item.picture is not None]
            given[IMAGE_EMBEDS], without[IMAGE_EMBEDS] = map(torch.cat, zip(*pictures, strict=True))
        batch = SamplingBatch(
            given,
            without,
            [item.seed for item in items],
            num_inference_steps=self.config.num_inference_steps,
            guidance_scale=self.scale,
        )
        latents, paths = self.latents(self.backbone, items, batch), None
        if latents.dim() == 5:
            latents, paths = latents[:, -1].float(), latents
        return Drawn(items, latents, self.backbone.vae.decode(latents), paths)

    def _rows(self, drawn: Drawn) -> Rows:
        """Encode a batch's images, and make the rows of the pool."""
        rows: Rows = {}
        for item, image, latent in zip(
            drawn.items, to_images(drawn.pixels), drawn.latents, strict=True
        ):
            rows[item] = _row(item, self.backbone.name, self.how, encode_png(image))
            if self.keep_latents:
                rows[item]["latents"] = latent.float().cpu().contiguous().numpy().tobytes()
                rows[item]["latents_shape"] = list(latent.shape)
            if drawn.paths is not None:
                path = drawn.paths[len(rows) - 1].cpu().contiguous()
                rows[item]["trajectory"] = path.numpy().tobytes()
                rows[item]["trajectory_shape"] = list(path.shape)
        return rows


def _drawn_before(file: Path, items: Sequence[Item]) -> Rows:
    """Rows of a shard's batches that a stopped command left; empty where it left none."""
    identity = ("prompt", "seed", "source_id", "timestep")
    rows = {tuple(row[key] for key in identity): row for row in candidates_made(file)}
    keys = {item: tuple(getattr(item, key) for key in identity) for item in items}
    return {item: rows[key] for item, key in keys.items() if key in rows}


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
