"""Metrics of every model's images: distances to real ones, Inception Score, hues."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tastemaker.config.sections import EvaluateConfig
from tastemaker.core.errors import TastemakerError
from tastemaker.core.registry import METRICS
from tastemaker.storage.images import decode
from tastemaker.storage.parquet import read_table
from tastemaker.storage.pool import Pool
from tastemaker.storage.trained_prompts import normalized_prompt

if TYPE_CHECKING:
    from PIL import Image


def check_measures(config: EvaluateConfig, prompts: int) -> None:
    """Refuse metrics that the number of images does not suffice for.

    Raises:
        TastemakerError: Too few prompts for a distance, or fewer images than splits.
    """
    if config.real is not None and config.features and prompts < 2:
        raise TastemakerError("distances to real images need images of two prompts or more.")
    images = prompts * config.num_images
    for metric in config.metrics:
        if metric.options.get("splits", 1) > images:
            raise TastemakerError(
                f"evaluate.metrics: {metric.name} cuts {images} images per model into"
                f" {metric.options['splits']} splits; lower its splits, or raise num_images."
            )


def add_measures(result: dict[str, Any], pools: Mapping[str, Pool], config: EvaluateConfig) -> None:
    """Add the configured metrics of every model, and with real images its hues against the base's.

    Args:
        result: Return value of `compare`; gets the metrics' names, and each model a key per name.
        pools: Model name to pool.
        config: Metrics, features and the pool of real images.

    Raises:
        TastemakerError: Unknown features, or too few images.
    """
    from tastemaker.metrics.named import Images

    models = result["models"]
    metrics = [(each.name, METRICS.bind(each.name, each.options)) for each in config.metrics]
    compared = [(name, metric) for name, metric in metrics if _compares(name)]
    result["metrics"] = list(dict(metrics))
    if config.real is not None:
        _add_distances(models, pools, Pool(Path(config.real).expanduser()), config, compared)
        _add_hues(models, pools)
    for model, pool in pools.items():
        read = functools.partial(_images, pool)
        images = Images(read, config.device, config.batch_size, config.seed)
        for name, metric in metrics:
            if not _compares(name):
                models[model].setdefault(name, {}).update(metric(images))


def _compares(metric: str) -> bool:
    """Return True for a metric whose first parameter is `features`, False for `images`."""
    return next(iter(inspect.signature(METRICS.entry(metric)).parameters)) == "features"


def _add_distances(
    models: dict[str, Any],
    pools: Mapping[str, Pool],
    real: Pool,
    config: EvaluateConfig,
    metrics: Sequence[tuple[str, Callable[..., dict[str, Any]]]],
) -> None:
    from tastemaker.metrics.features import feature_network
    from tastemaker.metrics.named import Captions, Features

    captions = Captions(_captions(pools["base"]), _captions(real), config.seed)
    for features in config.features if metrics else ():
        network = feature_network(features, device=config.device, batch_size=config.batch_size)
        there = network.features(_images(real))
        for model, pool in pools.items():
            both = Features(network.features(_images(pool)), there, captions, network.label)
            for name, metric in metrics:
                models[model].setdefault(name, {}).update(metric(both))


def _add_hues(models: dict[str, Any], pools: Mapping[str, Pool]) -> None:
    from tastemaker.metrics.hue import hue_distance

    base = list(_images(pools["base"]))
    for model, pool in pools.items():
        if model != "base":
            models[model]["hue_distance"] = hue_distance(_images(pool), base)


def _captions(pool: Pool) -> list[str]:
    prompts = pool.candidates(("prompt",))["prompt"].to_pylist()
    return [normalized_prompt(prompt) for prompt in prompts]


def _images(pool: Pool) -> Iterator[Image.Image]:
    """Read the pictures of a pool in order, with one shard in memory."""
    for shard in pool.shards():
        for row in read_table(shard, ("candidate_id", "image")).to_pylist():
            yield decode(row["image"]["bytes"], row["candidate_id"])
