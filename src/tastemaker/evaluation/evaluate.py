"""Evaluate policies against their base on the same prompts and seeds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from tastemaker.backbones.places import index_of, root_of
from tastemaker.config.commands import takes_options
from tastemaker.config.sections import AdapterConfig, EvaluateConfig
from tastemaker.core.errors import TastemakerError
from tastemaker.core.hardware import from_main_process
from tastemaker.core.values import MACHINE, checked_name
from tastemaker.datasets.prompts.sources import load_prompts
from tastemaker.evaluation.comparison import compare, score_table
from tastemaker.evaluation.measures import add_measures, check_measures
from tastemaker.evaluation.report_key import SCORES_DTYPE, report_key, up_to_date
from tastemaker.preflight import check, check_loading
from tastemaker.sampling.plans import plan
from tastemaker.scorers.pool import score_pools
from tastemaker.storage.artifact import Artifact
from tastemaker.storage.files import write_json
from tastemaker.storage.kept import SCORES
from tastemaker.storage.locks import exclusive
from tastemaker.storage.parquet import write_table
from tastemaker.storage.pool import Pool
from tastemaker.storage.results import read_report
from tastemaker.storage.trained_prompts import number_trained_on, shared_warning

SHARD_SIZE = 256

FEATURES = "features"
"""Folder beside the pools of what metrics compute of their images."""

MEASURING = ("scorers", "judge", "real", "features", "metrics")
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
    _check_names(models)
    config.refuse_switches(list(models))
    check(config)
    for model in models.values():
        index_of(root_of(str(model)))
    prompts = load_prompts(config.prompts)
    shared = number_trained_on(prompts, models.values())
    check_measures(config, len(prompts))
    if warning := shared_warning(shared or 0, len(prompts)):
        tqdm.write(f"warning: {warning}")

    judged = {name: str(model) for name, model in {"base": config.base, **models}.items()}
    look = partial(_check_loading, config, models)
    # All are looked at before the first is drawn.
    artifacts = {
        name: _artifact(_drawn(config, name), name, model, prompts, output / name)
        for name, model in judged.items()
    }
    stated = {"prompts_trained_on": shared, "judge": config.judge}
    if from_main_process(lambda: up_to_date(report, config, artifacts, **stated)):
        return report

    pools = {
        name: _draw(_drawn(config, name), model, prompts, artifacts[name], look)
        for name, model in judged.items()
    }
    score_pools(list(pools.values()), config.scorers, device=config.device, dtype=SCORES_DTYPE)
    columns = [scorer.column for scorer in config.scorers]
    scores = score_table(pools, columns, dict.fromkeys(pools, config.guidance_scale))
    result = compare(scores) | stated
    _add_switches(result, config)
    add_measures(result, pools, config, output / FEATURES)
    result["key"] = report_key(config, artifacts, **stated)
    with exclusive(report.parent):
        write_table(report.with_name(SCORES), scores)
        write_json(report, result)
    return report


def _add_switches(result: dict[str, Any], config: EvaluateConfig) -> None:
    """Add in words where the LoRAs of the judged models acted, if not everywhere."""
    for name, model in result["models"].items():
        if name != "base" and (words := config.switches(name).words):
            model["drawn_with"] = words


def _check_names(models: Mapping[str, Path | str]) -> None:
    """Refuse names of models that cannot be folders beside one another and the base's."""
    folders = {"base", FEATURES}
    for name in models:
        try:
            folder = checked_name(name).casefold()
        except ValueError as error:
            raise TastemakerError(f"a judged model: {error}.") from None
        if folder in folders:
            raise TastemakerError(
                f"a judged model cannot be named {name!r}: there is such a folder already (the base"
                f" has 'base', what is computed of images {FEATURES!r})."
            )
        folders.add(folder)


def _check_loading(config: EvaluateConfig, models: Mapping[str, Path | str]) -> None:
    from tastemaker.backbones import check_model

    check_loading(config)
    for model in models.values():
        check_model(str(model))


def _drawn(config: EvaluateConfig, name: str) -> EvaluateConfig:
    """Return the options with the switches of one model's LoRA."""
    # Where the base is a trained model itself, it is drawn as it is.
    own = AdapterConfig() if name == "base" else config.switches(name)
    return config.model_copy(update={"adapter": own})


def _artifact(
    config: EvaluateConfig, name: str, model: str, prompts: list[str], folder: Path
) -> Artifact:
    from tastemaker.backbones import model_identity

    around = {*MACHINE, "base", "adapters", *MEASURING}
    settings = config.model_dump(mode="json", exclude=around)
    inputs = {"model": model_identity(model), "prompts": prompts}
    return Artifact(folder, f"evaluate {name}", {**settings, "inputs": inputs})


def _draw(
    config: EvaluateConfig,
    model: str,
    prompts: list[str],
    artifact: Artifact,
    look: Callable[[], object],
) -> Pool:
    pool = Pool(artifact.folder)
    with artifact.claimed(look) as unfinished:
        if unfinished:
            from tastemaker.sampling.sampler import sample_pool

            images = plan(prompts, config.num_images, config.seed)
            sample_pool(
                config, model, images, pool.folder, keep_latents=False, shard_size=SHARD_SIZE
            )
            pool.require(len(images))
            artifact.finish(prompts=len(prompts), candidates=len(images))
    return pool


def summary(report: Path) -> str:
    """Format a `report.json` as text, one line per model and scorer.

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
    if (scores := report.with_name(SCORES)).is_file():
        lines.append(
            f"  computed again from each image's scores by tastemaker.compare({str(scores)!r})"
        )
    for name, model in data["models"].items():
        if "drawn_with" in model:
            lines.append(f"  {name} was drawn with {model['drawn_with']}")
    for scorer in data["models"]["base"]["scores"]:
        for name, model in data["models"].items():
            score = model["scores"][scorer]
            line = f"  {scorer:<16} {name:<8} {score['mean']:8.4f}{_error(score['stderr'])}"
            if "win_rate" in score:
                low, high = score["win_rate_low"], score["win_rate_high"]
                line += f"   {score['difference']:+.4f}{_ends(score, 'difference')}"
                line += f"   wins {score['win_rate']:.1%} of images [{low:.1%}, {high:.1%}]"
            lines.append(line)
    return "\n".join(lines)


def _error(value: float | None) -> str:
    return "" if value is None else f" +- {value:.4f}"


def _ends(of: Mapping[str, Any], name: str) -> str:
    low, high = of.get(f"{name}_low"), of.get(f"{name}_high")
    return "" if low is None or high is None else f" [{low:+.4f}, {high:+.4f}]"
