"""ROOM 1: prompts to candidates, or real images to candidates for each."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tastemaker.errors import TastemakerError
from tastemaker.prompts import load_prompts
from tastemaker.records import Pool, Stage, finished_key
from tastemaker.sections import DrawConfig, GenerateConfig, ReconstructConfig

if TYPE_CHECKING:
    import torch

    from tastemaker.backbones import Backbone, Conditioning
    from tastemaker.backbones.sampling import Draw, Item

REAL = "real"


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
    from tastemaker.backbones import model_identity
    from tastemaker.backbones.sampling import plan, plan_items, sample_pool

    settings = config.model_dump(mode="json", exclude={"device", "items"})
    inputs: dict[str, Any] = {"model": model_identity(config.model)}
    if config.items is not None:
        inputs["items"] = finished_key(Path(config.items))
        items = plan_items(_real(Path(config.items)), config.num_candidates, config.seed)
    else:
        assert config.prompts is not None
        prompts = load_prompts(config.prompts)
        inputs["prompts"] = prompts
        items = plan(prompts, config.num_candidates, config.seed)
    stage = Stage(output, "generate", {**settings, "inputs": inputs})
    if stage.begin().finished:
        return output
    sample_pool(
        config,
        config.model,
        items,
        output,
        keep_latents=config.keep_latents,
        shard_size=config.shard_size,
    )
    stage.finish(prompts=len({item.prompt for item in items}), candidates=len(items))
    return output


def reconstruct(config: ReconstructConfig, real: Path, output: Path) -> Path:
    """Noise every real image to some timesteps, and denoise it from there by a model.

    What comes out lies between the photograph and what the model would draw: the more noise, the
    more of the model. The noise is keyed by image and timestep.

    Args:
        config: Model, timesteps and sampling options.
        real: A pool of real images, from `import`.
        output: Folder of the pool; a candidate's `source_id` is the real image it comes from.

    Returns:
        `output`, a finished pool.

    Raises:
        TastemakerError: No real image in the pool, a timestep that the model does not have, no such
            model, a full disk.

    References:
        HG-DPO, arXiv 2405.20216, normal and hard stage. The paper names neither sampler nor
        guidance: those of the configuration are taken.
    """
    from tastemaker.backbones import model_identity
    from tastemaker.backbones.sampling import plan_reconstructions, sample_pool

    items = plan_reconstructions(_real(real), config.timesteps, config.seed)
    settings = config.model_dump(mode="json", exclude={"device"})
    inputs = {"model": model_identity(config.model), "real": finished_key(real)}
    stage = Stage(output, "reconstruct", {**settings, "inputs": inputs})
    if stage.begin().finished:
        return output
    sample_pool(
        config,
        config.model,
        items,
        output,
        keep_latents=config.keep_latents,
        shard_size=config.shard_size,
        draw=_from_real(config, Pool(real)),
    )
    stage.finish(images=len(items) // len(config.timesteps), candidates=len(items))
    return output


def _real(folder: Path) -> list[tuple[str, str]]:
    """Id and caption of every real image of a pool.

    Raises:
        TastemakerError: There is none.
    """
    table = Pool(folder).candidates(("candidate_id", "prompt", "source"))
    rows = [
        (row["candidate_id"], row["prompt"]) for row in table.to_pylist() if row["source"] == REAL
    ]
    if not rows:
        raise TastemakerError(
            f"{folder} holds no real image; import some: tastemaker import {folder} images=FOLDER."
        )
    return rows


def _from_real(config: DrawConfig, real: Pool) -> Draw:
    """Start every item from its real image, noised to its timestep."""
    import torch

    from tastemaker.backbones import select
    from tastemaker.candidates import Rows

    rows = Rows(real)

    def draw(
        backbone: Backbone, items: Sequence[Item], prompts: Conditioning, negative: Conditioning
    ) -> torch.Tensor:
        drawn = []
        for timestep, part in groupby(range(len(items)), lambda i: items[i].timestep or 0):
            places = list(part)
            if timestep >= backbone.num_timesteps:
                raise TastemakerError(
                    f"timestep {timestep} does not lie in [0, {backbone.num_timesteps}) of"
                    f" {backbone.name}; change reconstruct.timesteps."
                )
            latents = torch.stack(
                [backbone.encode_row(rows[items[i].source_id])[0] for i in places]
            )
            drawn.append(
                backbone.resample(
                    latents.to(backbone.device),
                    timestep,
                    select(prompts, places),
                    select(negative, places),
                    [items[i].seed for i in places],
                    num_inference_steps=config.num_inference_steps,
                    guidance_scale=config.guidance_scale,
                )
            )
        return torch.cat(drawn)

    return draw
