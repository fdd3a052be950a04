"""Evaluate policies against their base on the same prompts and seeds."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from tastemaker.config.sections import AdapterConfig, EvaluateConfig
from tastemaker.core.errors import TastemakerError
from tastemaker.core.values import checked_name
from tastemaker.datasets.prompts.sources import load_prompts
from tastemaker.metrics.clusters import mean_and_stderr
from tastemaker.metrics.win_rate import beat_ratio, win_matrix, win_rate
from tastemaker.preflight import check
from tastemaker.storage.artifact import Artifact
from tastemaker.storage.files import write_json
from tastemaker.storage.images import decode
from tastemaker.storage.locks import exclusive
from tastemaker.storage.parquet import read_table
from tastemaker.storage.pool import Pool
from tastemaker.storage.results import read_report
from tastemaker.storage.trained_prompts import normalized_prompt, number_trained_on, shared_warning

if TYPE_CHECKING:
    from PIL import Image

SHARD_SIZE = 256


def evaluate(
    config: EvaluateConfig,
    models: Mapping[str, Path | str],
    output: Path,
    report: Path,
    real: Path | None = None,
) -> Path:
    """Draw images of equal prompts and seeds by every model, score them, compare with the base.

    Args:
        config: Base model, prompts, scorers and sampling options.
        models: Name to model of what is to be judged, e.g. `{"policy": folder}`; "base" is taken.
        output: Folder that holds one scored pool a model.
        report: The `report.json` to write.
        real: A pool of held-out real images, to measure distances to.

    Returns:
        `report`.

    Raises:
        TastemakerError: No prompts, no such model, a score that is NaN, a full disk.
    """
    _check_names(models)
    config.refuse_switches(list(models))
    check(config)
    _check_models(models)
    prompts = load_prompts(config.prompts)
    shared = number_trained_on(prompts, models.values())
    if real is not None and config.features and len(prompts) < 2:
        raise TastemakerError("distances to real images need images of two prompts or more.")
    if warning := shared_warning(shared or 0, len(prompts)):
        tqdm.write(f"warning: {warning}")

    from tastemaker.scorers.pool import score_pool

    judged = {name: str(model) for name, model in {"base": config.base, **models}.items()}
    # All are looked at before the first is drawn.
    artifacts = {
        name: _artifact(_drawn(config, name), name, model, prompts, output / name)
        for name, model in judged.items()
    }
    pools = {
        name: _draw(_drawn(config, name), model, prompts, artifacts[name])
        for name, model in judged.items()
    }
    for pool in pools.values():
        score_pool(pool, config.scorers, device=config.device)
    columns = [scorer.column for scorer in config.scorers]
    result = compare(pools, columns, len(prompts)) | {"prompts_trained_on": shared}
    for name in models:
        if words := config.switches(name).words:
            result["models"][name]["drawn_with"] = words
    if real is not None:
        add_distances(result, pools, Pool(real), config)
    with exclusive(report.parent):
        write_json(report, result)
    return report


def _check_names(models: Mapping[str, Path | str]) -> None:
    """Refuse names of models that cannot be folders beside one another and the base's."""
    folders = {"base"}
    for name in models:
        try:
            folder = checked_name(name).casefold()
        except ValueError as error:
            raise TastemakerError(f"a judged model: {error}.") from None
        if folder in folders:
            raise TastemakerError(
                f"a judged model cannot be named {name!r}: there is such a folder already (the base"
                " has 'base')."
            )
        folders.add(folder)


def _check_models(models: Mapping[str, Path | str]) -> None:
    from tastemaker.backbones import check_model

    for model in models.values():
        check_model(str(model))


def compare(pools: Mapping[str, Pool], scorers: list[str], prompts: int) -> dict[str, Any]:
    """Summarise scored pools of equal prompts and seeds.

    Standard errors and intervals take the prompts as clusters: images of one prompt are not
    independent. The difference to the base is of images of one prompt and seed, so that its error
    is usually far below those of the two means.

    Args:
        pools: Model name to pool; one is "base".
        scorers: Columns to summarise.
        prompts: Number of prompts.

    Returns:
        The content of `report.json`, schema 1; a standard error that one prompt cannot have is
        None.

    Raises:
        TastemakerError: The pools hold other prompts or seeds, or a score is missing or not finite.
    """
    tables = {name: pool.scores() for name, pool in pools.items()}
    rows = ("prompt_id", "seed")
    for name, table in tables.items():
        if any(table[key].to_pylist() != tables["base"][key].to_pylist() for key in rows):
            raise TastemakerError(
                f"pool of {name!r} has other prompts or seeds than the base's; make both anew."
            )
    clusters = tables["base"]["prompt_id"].to_pylist()
    scores = {
        scorer: {name: table[scorer].to_pylist() for name, table in tables.items()}
        for scorer in scorers
    }
    models = {
        name: {
            "scores": {
                scorer: _entry(held[name], None if name == "base" else held["base"], clusters)
                for scorer, held in scores.items()
            }
        }
        for name in tables
    }
    result: dict[str, Any] = {
        "schema": 1,
        "base": "base",
        "prompts": prompts,
        "images": len(clusters),
        "models": models,
    }
    if len(tables) > 2:
        result["win_rates"] = {
            scorer: _against_each(held, clusters) for scorer, held in scores.items()
        }
    return result


def _entry(
    values: list[float], base: list[float] | None, clusters: Sequence[str]
) -> dict[str, float | None]:
    """One model under one scorer, as `report.json` holds it; without `base` it is the base."""
    mean, stderr = mean_and_stderr(values, clusters)
    entry = {"mean": mean, "stderr": _known(stderr)}
    if base is None:
        return entry
    gains = [value - other for value, other in zip(values, base, strict=True)]
    difference, error = mean_and_stderr(gains, clusters)
    rate = win_rate(values, base, clusters)
    return entry | {
        "difference": difference,
        "difference_stderr": _known(error),
        "win_rate": rate.value,
        "win_rate_low": rate.low,
        "win_rate_high": rate.high,
        "beat_ratio": beat_ratio(values, base),
    }


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _against_each(
    scores: Mapping[str, list[float]], clusters: Sequence[str]
) -> dict[str, dict[str, dict[str, float]]]:
    """Win rates of every model against every other, as `report.json` holds them."""
    return {
        name: {
            other: {"value": rate.value, "low": rate.low, "high": rate.high}
            for other, rate in rates.items()
        }
        for name, rates in win_matrix(scores, clusters).items()
    }


def add_distances(
    result: dict[str, Any], pools: Mapping[str, Pool], real: Pool, config: EvaluateConfig
) -> None:
    """Add how far every model's images lie from real ones, and its colours from the base's.

    Args:
        result: From `compare`; each model gets `frechet` and `kernel` and, but for the base,
            `hue_distance`.
        pools: Model name to pool.
        real: Held-out real images.
        config: Which features.

    Raises:
        TastemakerError: Unknown features, or too few real images.
    """
    from tastemaker.metrics.distances import Captions, distances
    from tastemaker.metrics.features import feature_network
    from tastemaker.metrics.hue import hue_distance

    models = result["models"]
    captions = Captions(_captions(pools["base"]), _captions(real), config.seed)
    for name in config.features:
        network = feature_network(name, device=config.device, batch_size=config.batch_size)
        there = network.features(_images(real))
        for model, pool in pools.items():
            found = distances(network.features(_images(pool)), there, captions, network.label)
            for kind, entry in found.items():
                models[model].setdefault(kind, {})[network.label] = entry
    base = list(_images(pools["base"]))
    for model, pool in pools.items():
        if model != "base":
            models[model]["hue_distance"] = hue_distance(_images(pool), base)


def _captions(pool: Pool) -> list[str]:
    prompts = pool.candidates(("prompt",))["prompt"].to_pylist()
    return [normalized_prompt(prompt) for prompt in prompts]


def _images(pool: Pool) -> Iterator[Image.Image]:
    """Pictures of a pool, in order, a shard in memory at a time."""
    for shard in pool.shards():
        for row in read_table(shard, ("candidate_id", "image")).to_pylist():
            yield decode(row["image"]["bytes"], row["candidate_id"])


def _drawn(config: EvaluateConfig, name: str) -> EvaluateConfig:
    """The options with the switches of one model's LoRA."""
    # Where the base is a trained model itself, it is drawn as it is.
    own = AdapterConfig() if name == "base" else config.switches(name)
    return config.model_copy(update={"adapter": own})


def _artifact(
    config: EvaluateConfig, name: str, model: str, prompts: list[str], folder: Path
) -> Artifact:
    from tastemaker.backbones import model_identity

    around = {"device", "scorers", "base", "features", "adapters", "judge"}
    settings = config.model_dump(mode="json", exclude=around)
    inputs = {"model": model_identity(model), "prompts": prompts}
    return Artifact(folder, f"evaluate {name}", {**settings, "inputs": inputs})


def _draw(config: EvaluateConfig, model: str, prompts: list[str], artifact: Artifact) -> Pool:
    from tastemaker.sampling.sampler import plan, sample_pool

    pool = Pool(artifact.folder)
    with artifact.claimed() as unfinished:
        if unfinished:
            items = plan(prompts, config.num_images, config.seed)
            sample_pool(
                config, model, items, pool.folder, keep_latents=False, shard_size=SHARD_SIZE
            )
            pool.require(len(items))
            artifact.finish(prompts=len(prompts), candidates=len(items))
    return pool


def summary(report: Path) -> str:
    """Put a `report.json` in words, a line a model and scorer.

    Args:
        report: The file.

    Returns:
        Lines with mean, paired difference to the base and win rate.

    Raises:
        TastemakerError: The file is missing or damaged.
    """
    data = read_report(report)
    counts = f"{data['prompts']} prompts, {data['images']} images per model"
    shared = data.get("prompts_trained_on")
    if shared is not None:
        counts += f", {shared or 'none'} of the prompts trained on"
    lines = [f"{counts}; standard errors and 95% intervals clustered by prompt"]
    for name, model in data["models"].items():
        if "drawn_with" in model:
            lines.append(f"  {name} was drawn with {model['drawn_with']}")
    for scorer in data["models"]["base"]["scores"]:
        for name, model in data["models"].items():
            score = model["scores"][scorer]
            line = f"  {scorer:<16} {name:<8} {score['mean']:8.4f}{_error(score['stderr'])}"
            if "win_rate" in score:
                low, high = score["win_rate_low"], score["win_rate_high"]
                line += f"   {score['difference']:+.4f}{_error(score['difference_stderr'])}"
                line += f"   wins {score['win_rate']:.1%} of images [{low:.1%}, {high:.1%}]"
            lines.append(line)
    return "\n".join(lines)


def _error(value: float | None) -> str:
    return "" if value is None else f" +- {value:.4f}"
