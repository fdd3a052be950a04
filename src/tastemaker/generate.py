"""ROOM 1: prompts to candidates."""

from __future__ import annotations

from pathlib import Path

from tastemaker.prompts import load_prompts
from tastemaker.records import Stage
from tastemaker.sections import GenerateConfig


def generate(config: GenerateConfig, output: Path) -> Path:
    """Draw `num_candidates` images for every prompt.

    Args:
        config: Model, prompts and sampling options.
        output: Folder of the pool.

    Returns:
        `output`, a finished pool.

    Raises:
        TastemakerError: No prompts, no such model, a pool of another configuration, a full disk.
    """
    prompts = load_prompts(config.prompts)

    from tastemaker.backbones import model_identity
    from tastemaker.backbones.sampling import plan, sample_pool

    inputs = {"model": model_identity(config.model), "prompts": prompts}
    settings = config.model_dump(mode="json", exclude={"device"})
    stage = Stage(output, "generate", {**settings, "inputs": inputs})
    if stage.begin().finished:
        return output
    items = plan(prompts, config.num_candidates, config.seed)
    sample_pool(
        config,
        config.model,
        items,
        output,
        keep_latents=config.keep_latents,
        shard_size=config.shard_size,
    )
    stage.finish(prompts=len(prompts), candidates=len(items))
    return output
