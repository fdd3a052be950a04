"""Generate candidates for prompts, or for real images."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tastemaker.config.commands import takes_options
from tastemaker.config.sections import DrawConfig, GenerateConfig, ReconstructConfig
from tastemaker.core.errors import TastemakerError
from tastemaker.core.seeding import keyed_seed
from tastemaker.core.values import MACHINE
from tastemaker.datasets.prompts.sources import load_prompts
from tastemaker.preflight import check, check_loading, expect
from tastemaker.sampling.pictures import with_pictures
from tastemaker.sampling.plans import Item, Plan, RealImage, plan, plan_items, plan_reconstructions
from tastemaker.storage.artifact import Artifact, finished_key
from tastemaker.storage.candidates import REAL, Rows
from tastemaker.storage.parquet import read_table
from tastemaker.storage.pool import Pool

if TYPE_CHECKING:
    import torch

    from tastemaker.backbones import Backbone, SamplingBatch
    from tastemaker.sampling.sampler import Draw


@takes_options(GenerateConfig)
def generate(config: GenerateConfig, output: Path) -> Path:
    """Draw `num_candidates` images for every prompt, or for the caption of every real image.

    Args:
        config: Model, prompts or real images, and sampling options.
        output: Folder of the pool.

    Returns:
        `output`, a finished pool.

    Raises:
        TastemakerError: No prompts, no such model, a pool of another configuration, a full disk.
    """
    check(config)
    inputs, planned, prompts = _planned(config)
    artifact = _artifact(output, "generate", config, inputs)
    with artifact.claimed(partial(check_loading, config)) as unfinished:
        if unfinished:
            draw = _trajectories(config) if config.trajectories else None
            _fill(artifact, config, planned, draw=draw, prompts=prompts)
    return output


@takes_options(ReconstructConfig)
def reconstruct(config: ReconstructConfig, real: Path, output: Path) -> Path:
    """Noise every real image to some timesteps, and denoise it from there by a model.

    The result is between the photograph and a sample of the model: the more noise, the
    more of the model. The noise is keyed by image and timestep. Timesteps are those of Stable
    Diffusion's schedule; other models take those of equal noise level.

    Args:
        config: Model, timesteps and sampling options.
        real: A pool of real images, from `import`.
        output: Folder of the pool; a candidate's `source_id` is the real image it comes from.

    Returns:
        `output`, a finished pool.

    Raises:
        TastemakerError: No real image in the pool, no such model, a full disk.

    References:
        HG-DPO, arXiv 2405.20216, normal and hard stage. The paper names neither sampler nor
        guidance: those of the configuration are taken.
    """
    check(config)
    expect(real, "pool")
    images = _real(real)
    planned, pictures = with_pictures(
        config,
        plan_reconstructions(images, config.timesteps, config.seed),
        [each.candidate_id for each in images],
    )
    inputs = {"real": finished_key(real), **pictures}
    artifact = _artifact(output, "reconstruct", config, inputs)
    with artifact.claimed(partial(check_loading, config)) as unfinished:
        if unfinished:
            _fill(artifact, config, planned, draw=_from_real(Pool(real)), images=len(images))
    return output


def _planned(config: GenerateConfig) -> tuple[dict[str, Any], Plan, int]:
    """Return the inputs of the artifact, its candidates and the number of their prompts."""
    draws, seed = config.num_candidates, config.seed
    if config.items is not None:
        pool = Path(config.items)
        key, real = finished_key(pool), _real(pool)
        captions = len({each.caption for each in real})
        ids = [each.candidate_id for each in real]
        planned, pictures = with_pictures(config, plan_items(real, draws, seed), ids)
        return {"items": key, **pictures}, planned, captions
    assert config.prompts is not None
    prompts = load_prompts(config.prompts)
    planned, pictures = with_pictures(config, plan(prompts, draws, seed), prompts)
    return {"prompts": prompts, **pictures}, planned, len(prompts)


def _artifact(output: Path, command: str, config: DrawConfig, inputs: dict[str, Any]) -> Artifact:
    """Return the artifact of a sampled pool; a pool of real images counts as an input."""
    from tastemaker.backbones import adapter_identity, model_identity

    settings = config.model_dump(mode="json", exclude={*MACHINE, "items"})
    inputs = {"model": model_identity(config.model), **inputs}
    if config.adapter.negative is not None:
        inputs["negative"] = adapter_identity(config.adapter.negative)
    return Artifact(output, command, {**settings, "inputs": inputs})


def _fill(
    artifact: Artifact,
    config: DrawConfig,
    planned: Plan,
    *,
    draw: Draw | None = None,
    **counts: int,
) -> None:
    """Sample what is missing of an artifact's pool, and finish it with its counts."""
    from tastemaker.sampling.sampler import sample_pool

    sample_pool(
        config,
        config.model,
        planned,
        artifact.folder,
        keep_latents=config.keep_latents,
        shard_size=config.shard_size,
        draw=draw,
    )
    Pool(artifact.folder).require(len(planned))
    artifact.finish(**counts, candidates=len(planned))


def _real(folder: Path) -> list[RealImage]:
    """Every real image of a pool.

    Raises:
        TastemakerError: There is none.
    """
    from tastemaker.storage.images import size_of

    columns = ("candidate_id", "prompt", "source", "image")
    rows = [
        RealImage(
            row["candidate_id"], row["prompt"], size_of(row["image"]["bytes"], row["candidate_id"])
        )
        for shard in Pool(folder).shards()
        for row in read_table(shard, columns).to_pylist()
        if row["source"] == REAL
    ]
    if not rows:
        raise TastemakerError(
            f"{folder} has no real image; import some: tastemaker import {folder} images=FOLDER."
        )
    return rows


def _trajectories(config: GenerateConfig) -> Draw:
    """Sample whole trajectories, those of a prompt from one starting noise."""
    from tastemaker.backbones.trajectories import sample_trajectories

    def draw(backbone: Backbone, items: Sequence[Item], batch: SamplingBatch) -> torch.Tensor:
        height, width = items[0].size or (None, None)
        starts = [keyed_seed(config.seed, "start", item.prompt) for item in items]
        sides = {"height": config.height or height, "width": config.width or width}
        return sample_trajectories(backbone, batch, starts, **sides)

    return draw


def _from_real(real: Pool) -> Draw:
    """Start every item from its real image, noised to its timestep."""
    import torch

    from tastemaker.backbones.latents import encode_row

    rows = Rows(real)

    def draw(backbone: Backbone, items: Sequence[Item], batch: SamplingBatch) -> torch.Tensor:
        drawn = []
        for timestep, part in groupby(range(len(items)), lambda i: items[i].timestep or 0):
            places = list(part)
            latents = torch.stack(
                [encode_row(backbone, rows[items[i].source_id])[0] for i in places]
            )
            start = backbone.noise_schedule.timestep_at(timestep)
            drawn.append(
                backbone.resample(latents.to(backbone.device), start, batch.select(places))
            )
        return torch.cat(drawn)

    return draw
