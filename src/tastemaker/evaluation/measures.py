"""Metrics of every model's images: distances to real ones, diversity, Inception Score, hues."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tastemaker.config.evaluation import EvaluateConfig
from tastemaker.core.errors import TastemakerError
from tastemaker.core.registry import METRICS
from tastemaker.metrics.networks import Network, features_identity
from tastemaker.storage.artifact import finished_key
from tastemaker.storage.pool import Pool
from tastemaker.storage.trained_prompts import normalized_prompt

if TYPE_CHECKING:
    from PIL import Image

    from tastemaker.metrics.kept import Batches, Kept


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


def add_measures(
    result: dict[str, Any], pools: Mapping[str, Pool], config: EvaluateConfig, folder: Path
) -> None:
    """Add the configured metrics of every model, and with real images its hues against the base's.

    Args:
        result: Return value of `compare`; gets the metrics' names, and each model a key per name.
        pools: Model name to pool.
        config: Metrics, features and the pool of real images.
        folder: Keeps what is computed of the images.

    Raises:
        TastemakerError: Unknown features, or too few images.
    """
    from tastemaker.metrics.kept import Kept
    from tastemaker.metrics.named import Images

    kept = Kept(folder)
    models = result["models"]
    metrics = [(each.name, METRICS.bind(each.name, each.options)) for each in config.metrics]
    of = {kind: [each for each in metrics if _takes(each[0]) == kind] for kind in KINDS}
    result["metrics"] = list(dict(metrics))
    if config.real is not None:
        real = Pool(Path(config.real).expanduser())
        _add_distances(models, pools, real, config, of["features"], kept)
        _add_hues(models, pools, kept)
    _add_paired(models, pools, config, of["paired"], kept)
    for model, pool in pools.items():
        read, rows = partial(_images, pool), partial(kept.rows, pool)
        images = Images(read, rows, config.device, config.batch_size, config.seed)
        for name, metric in of["images"]:
            models[model].setdefault(name, {}).update(metric(images))


KINDS = ("features", "paired", "images")
"""First parameters of metrics: a `named.Features`, `named.Paired` or `named.Images`."""


def _takes(metric: str) -> str:
    """Return the name of a metric's first parameter, which says what it is computed of."""
    return next(iter(inspect.signature(METRICS.entry(metric)).parameters))


def _add_paired(
    models: dict[str, Any],
    pools: Mapping[str, Pool],
    config: EvaluateConfig,
    metrics: Sequence[tuple[str, Callable[..., dict[str, Any]]]],
    kept: Kept,
) -> None:
    from tastemaker.metrics.named import Paired

    prompts = _captions(pools["base"])
    for network, load in networks(config) if metrics else ():
        rows = {model: kept.rows(pool, network, load) for model, pool in pools.items()}
        for model, drawn in rows.items():
            base = None if model == "base" else rows["base"]
            both = Paired(drawn, base, prompts, network.label)
            for name, metric in metrics:
                models[model].setdefault(name, {}).update(metric(both))


def _add_distances(
    models: dict[str, Any],
    pools: Mapping[str, Pool],
    real: Pool,
    config: EvaluateConfig,
    metrics: Sequence[tuple[str, Callable[..., dict[str, Any]]]],
    kept: Kept,
) -> None:
    from tastemaker.metrics.named import Captions, Features

    captions = Captions(_captions(pools["base"]), _captions(real), config.seed)
    for network, load in networks(config) if metrics else ():
        there = kept.rows(real, network, load)
        for model, pool in pools.items():
            rows = kept.rows(pool, network, load)
            keys = {"pool": finished_key(pool.folder), "real": finished_key(real.folder)}
            depends = {**network._asdict(), **keys, "seed": config.seed}
            resampled = partial(kept.values, "frechet resamples", **depends)
            both = Features(rows, there, captions, network.label, resampled)
            for name, metric in metrics:
                models[model].setdefault(name, {}).update(metric(both))


def networks(config: EvaluateConfig) -> Iterator[tuple[Network, Callable[[], Batches]]]:
    """Yield the networks of `evaluate.features`, each with a function that loads it once."""
    for features in config.features:
        yield features_identity(features), functools.cache(partial(_load, features, config))


def _load(features: str, config: EvaluateConfig) -> Batches:
    from tastemaker.metrics.features import feature_network

    network = feature_network(features, device=config.device, batch_size=config.batch_size)
    return network.features.batches


def _add_hues(models: dict[str, Any], pools: Mapping[str, Pool], kept: Kept) -> None:
    from tastemaker.metrics.hue import hue_batches, mean_hue_difference

    hues = {
        model: [
            None if math.isnan(hue) else hue
            for (hue,) in kept.rows(pool, Network("hue", {}), lambda: hue_batches).tolist()
        ]
        for model, pool in pools.items()
    }
    for model in pools:
        if model != "base":
            models[model]["hue_distance"] = mean_hue_difference(hues[model], hues["base"])


def _captions(pool: Pool) -> list[str]:
    prompts = pool.candidates(("prompt",))["prompt"].to_pylist()
    return [normalized_prompt(prompt) for prompt in prompts]


def _images(pool: Pool) -> Iterator[Image.Image]:
    """Read the pictures of a pool in order, with one shard in memory."""
    from tastemaker.metrics.kept import pool_images

    for shard in pool.shards():
        yield from pool_images(shard)
