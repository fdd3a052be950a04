"""Search of each model's own best guidance scale, on prompts that are not the evaluation's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from tastemaker.config.evaluation import EvaluateConfig, GuidanceSearchConfig
from tastemaker.datasets.prompts.sources import load_prompts
from tastemaker.evaluation.comparison import known
from tastemaker.evaluation.measures import networks
from tastemaker.metrics.clusters import mean_and_stderr
from tastemaker.storage.pool import Pool

Point = dict[str, Any]
"""A model at one scale: `guidance_scale`, `mean`, `stderr`, and `diversity` by features."""

Searched = dict[str, dict[float, Pool]]
"""Model name to scale to scored pool of the search's images; empty without a search."""


def options_at(config: EvaluateConfig, search: GuidanceSearchConfig) -> dict[float, EvaluateConfig]:
    """Return the options to draw the search's images with, by scale."""
    images = {"prompts": search.prompts, "num_images": search.num_images}
    return {
        scale: config.model_copy(update={"guidance_scale": scale, **images})
        for scale in search.guidance_scales
    }


def points(config: EvaluateConfig, searched: Searched) -> dict[str, list[Point]]:
    """Summarise the search by model, and warn where a best scale is at the grid's edge.

    Args:
        config: The evaluation.
        searched: What the search drew.

    Returns:
        Per model a point per scale, with the mean score and its standard error clustered by prompt.
    """
    found = {
        name: [_point(scale, pool, config) for scale, pool in pools.items()]
        for name, pools in searched.items()
    }
    for name, of in found.items():
        if warning := edge_warning(name, of):
            tqdm.write(f"warning: {warning}")
    return found


def _point(scale: float, pool: Pool, config: EvaluateConfig) -> Point:
    assert config.guidance_search is not None
    table = pool.scores()
    scores, prompts = (
        table[name].to_pylist() for name in (config.guidance_search.scorer, "prompt_id")
    )
    mean, stderr = mean_and_stderr(scores, prompts)
    return {"guidance_scale": scale, "mean": mean, "stderr": known(stderr)}


def add_search(
    result: dict[str, Any],
    searched: Searched,
    found: Mapping[str, Sequence[Point]],
    config: EvaluateConfig,
    folder: Path,
) -> None:
    """Add the search to a report, with diversity where there are several images of a prompt.

    Args:
        result: Gets the scorer and number of prompts, and each model its points.
        searched: What the search drew.
        found: Its points.
        config: The evaluation.
        folder: Keeps features of images.
    """
    search = config.guidance_search
    if search is None:
        return
    from tastemaker.metrics.kept import Kept
    from tastemaker.metrics.named import Paired, diversity

    number = len(load_prompts(search.prompts))
    result["guidance_search"] = {"scorer": search.scorer, "prompts": number}
    kept, several = Kept(folder), search.num_images > 1
    for name, pools in searched.items():
        result["models"][name]["guidance_search"] = of = [dict(point) for point in found[name]]
        for network, load in networks(config) if several else ():
            for point, pool in zip(of, pools.values(), strict=True):
                prompts = pool.candidates(("prompt_id",))["prompt_id"].to_pylist()
                drawn = Paired(kept.rows(pool, network, load), None, prompts, network.label)
                point.setdefault("diversity", {}).update(diversity(drawn))


def best_scale(found: Sequence[Point]) -> float:
    """Return the scale of the highest mean, of equal ones the first.

    Example:
        >>> best_scale([{"guidance_scale": 1.5, "mean": 0.2}, {"guidance_scale": 2.0, "mean": 0.6}])
        2.0
    """
    return float(max(found, key=lambda point: point["mean"])["guidance_scale"])


def edge_warning(model: str, found: Sequence[Point]) -> str | None:
    """Warn of a best scale at an edge of the grid; one of 1 or less, no guidance, is not an edge.

    Args:
        model: The model's name.
        found: Its points.

    Returns:
        A sentence with the remedy; None where the best scale lies inside, or none was searched.
    """
    if not found:
        return None
    best, scales = best_scale(found), [point["guidance_scale"] for point in found]
    if best == max(scales) or 1 < best == min(scales):
        return (
            f"The best guidance scale of {model}, {best:g}, is at the edge of the grid; a better"
            " one may lie beyond: widen evaluate.guidance_search.guidance_scales."
        )
    return None
