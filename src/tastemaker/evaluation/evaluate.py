"""Evaluate policies against their base on the same prompts and seeds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from tastemaker.backbones.places import index_of, root_of
from tastemaker.config.commands import takes_options
from tastemaker.config.evaluation import EvaluateConfig
from tastemaker.config.sections import AdapterConfig
from tastemaker.core.errors import TastemakerError
from tastemaker.core.hardware import from_main_process
from tastemaker.core.values import MACHINE, checked_name
from tastemaker.datasets.prompts.sources import load_prompts
from tastemaker.evaluation.comparison import compare, score_table
from tastemaker.evaluation.guidance import (
    Point,
    Searched,
    add_search,
    best_scale,
    options_at,
    points,
)
from tastemaker.evaluation.measures import add_measures, check_measures
from tastemaker.evaluation.report_key import SCORES_DTYPE, report_key, up_to_date
from tastemaker.preflight import check, check_loading
from tastemaker.sampling.pictures import with_pictures
from tastemaker.sampling.plans import Plan, plan
from tastemaker.scorers.pool import score_pools
from tastemaker.storage.artifact import Artifact
from tastemaker.storage.files import write_json
from tastemaker.storage.kept import SCORES
from tastemaker.storage.locks import exclusive
from tastemaker.storage.parquet import write_table
from tastemaker.storage.pool import Pool
from tastemaker.storage.trained_prompts import prompts_trained_on, shared_warning

if TYPE_CHECKING:
    from tastemaker.sampling.loading import PolicyLoader

SHARD_SIZE = 256

FEATURES = "features"
"""Folder beside the pools of what metrics compute of their images."""

SEARCH = "guidance"
"""Folder beside the pools of the images that guidance is searched with."""

MEASURING = ("scorers", "judge", "real", "features", "metrics", "guidance_search")
"""Options that do not enter the images."""


@takes_options(EvaluateConfig)
def evaluate(
    config: EvaluateConfig,
    models: Mapping[str, Path | str],
    output: Path,
    report: Path,
) -> Path:
    """Draw images of equal prompts and seeds by every model, score and compare them.

    Nothing is loaded or computed where `report` is of these very models, options and images.

    Args:
        config: Base model, prompts, scorers and sampling options.
        models: Name to model of those to judge, e.g. `{"policy": folder}`; "base" is taken.
        output: Folder of one scored pool per model.
        report: The `report.json` to write; `scores.parquet` beside it gets the images' scores.

    Returns:
        `report`.

    Raises:
        TastemakerError: No prompts, no such model, a score that is NaN, a full disk.
    """
    prompts, shared = _checked_prompts(config, models)
    judged = {name: str(model) for name, model in {"base": config.base, **models}.items()}
    look = partial(_check_loading, config, models)
    searched = _search(config, judged, output / SEARCH, look)
    found = points(config, searched)
    drawn = {name: _drawn(config, name, found.get(name)) for name in judged}
    # All are looked at before the first is drawn.
    artifacts = {
        name: _artifact(drawn[name], name, model, prompts, output / name)
        for name, model in judged.items()
    }
    stated = {"prompts_trained_on": shared, "judge": config.judge}
    keyed = {**stated, "guidance": found}
    if from_main_process(lambda: up_to_date(report, config, artifacts, **keyed)):
        return report

    loader = cache(_policy_loader)
    pools = {
        name: _draw(drawn[name], model, prompts, artifacts[name], look, loader)
        for name, model in judged.items()
    }
    del loader  # scorers take its memory
    score_pools(list(pools.values()), config.scorers, device=config.device, dtype=SCORES_DTYPE)
    scales = {name: at.guidance_scale for name, at in drawn.items()}
    scores = score_table(pools, [scorer.column for scorer in config.scorers], scales)
    result = compare(scores) | stated
    _add_switches(result, config)
    add_measures(result, pools, config, output / FEATURES)
    add_search(result, searched, found, config, output / FEATURES)
    result["key"] = report_key(config, artifacts, **keyed)
    with exclusive(report.parent):
        write_table(report.with_name(SCORES), scores)
        write_json(report, result)
    return report


def _checked_prompts(
    config: EvaluateConfig, models: Mapping[str, Path | str]
) -> tuple[list[str], int | None]:
    """Check options and models without torch; return prompts, and how many are trained on."""
    _check_names(models)
    config.refuse_switches(list(models))
    check(config)
    for model in models.values():
        index_of(root_of(str(model)))
    prompts = load_prompts(config.prompts)
    shared = prompts_trained_on(prompts, models.values())
    check_measures(config, len(prompts))
    number = None if shared is None else len(shared)
    if warning := shared_warning(number or 0, len(prompts), shared or ()):
        tqdm.write(f"warning: {warning}")
    return prompts, number


def _add_switches(result: dict[str, Any], config: EvaluateConfig) -> None:
    """Add in words where the LoRAs of the judged models acted, if not everywhere."""
    for name, model in result["models"].items():
        if name != "base" and (words := config.switches(name).words):
            model["drawn_with"] = words


def _check_names(models: Mapping[str, Path | str]) -> None:
    """Refuse names of models that cannot be folders beside one another and the base's."""
    folders = {"base", FEATURES, SEARCH}
    for name in models:
        try:
            folder = checked_name(name).casefold()
        except ValueError as error:
            raise TastemakerError(f"a judged model: {error}.") from None
        if folder in folders:
            raise TastemakerError(
                f"a judged model cannot be named {name!r}: there is such a folder already (the base"
                f" has 'base', what is computed of images {FEATURES!r}, the search {SEARCH!r})."
            )
        folders.add(folder)


def _check_loading(config: EvaluateConfig, models: Mapping[str, Path | str]) -> None:
    from tastemaker.backbones import check_model

    check_loading(config)
    for model in models.values():
        check_model(str(model))


def _search(
    config: EvaluateConfig,
    judged: Mapping[str, str],
    folder: Path,
    look: Callable[[], object],
) -> Searched:
    """Draw and score every model's images at every scale of the search, as artifacts by key."""
    search = config.guidance_search
    if search is None:
        return {}
    prompts = load_prompts(search.prompts)
    pools: Searched = {}
    loader = cache(_policy_loader)
    for name, model in judged.items():
        pools[name] = {}
        for scale, at in options_at(config, search).items():
            at = _drawn(at, name)
            artifact = _artifact(at, name, model, prompts, folder)
            place = replace(artifact, folder=folder / f"{name}-{scale}-{artifact.key}")
            pools[name][scale] = _draw(at, model, prompts, place, look, loader)
    del loader  # scorers take its memory
    every = [pool for at in pools.values() for pool in at.values()]
    by = [scorer for scorer in config.scorers if scorer.column == search.scorer]
    score_pools(every, by, device=config.device, dtype=SCORES_DTYPE)
    return pools


def _policy_loader() -> PolicyLoader:
    from tastemaker.sampling.loading import PolicyLoader

    return PolicyLoader()


def _drawn(
    config: EvaluateConfig, name: str, found: Sequence[Point] | None = None
) -> EvaluateConfig:
    """Return the options with the guidance and the switches of the LoRA of one model."""
    # Where the base is a trained model itself, it is drawn as it is.
    own = AdapterConfig() if name == "base" else config.switches(name)
    scale = best_scale(found) if found else config.guidance_scale
    return config.model_copy(update={"adapter": own, "guidance_scale": scale})


def _artifact(
    config: EvaluateConfig, name: str, model: str, prompts: list[str], folder: Path
) -> Artifact:
    from tastemaker.backbones import adapter_identity, model_identity

    around = {*MACHINE, "base", "adapters", *MEASURING}
    settings = config.model_dump(mode="json", exclude=around)
    _, pictures = _planned(config, prompts)
    inputs = {"model": model_identity(model), "prompts": prompts, **pictures}
    if config.adapter.negative is not None:
        inputs["negative"] = adapter_identity(config.adapter.negative)
    return Artifact(folder, f"evaluate {name}", {**settings, "inputs": inputs})


def _planned(config: EvaluateConfig, prompts: list[str]) -> tuple[Plan, dict[str, Any]]:
    return with_pictures(config, plan(prompts, config.num_images, config.seed), prompts)


def _draw(
    config: EvaluateConfig,
    model: str,
    prompts: list[str],
    artifact: Artifact,
    look: Callable[[], object],
    loader: Callable[[], PolicyLoader],
) -> Pool:
    pool = Pool(artifact.folder)
    with artifact.claimed(look) as unfinished:
        if unfinished:
            from tastemaker.sampling.sampler import sample_pool

            images, _ = _planned(config, prompts)
            sample_pool(
                config,
                model,
                images,
                pool.folder,
                keep_latents=False,
                shard_size=SHARD_SIZE,
                loader=loader(),
            )
            pool.require(len(images))
            artifact.finish(prompts=len(prompts), candidates=len(images))
    return pool
