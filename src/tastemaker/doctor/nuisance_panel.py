"""The nuisance panel: changes of a picture that a scorer rewards though they make it no better."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from statistics import fmean, pstdev
from tempfile import TemporaryDirectory
from typing import Any

from PIL import Image
from tqdm import tqdm

from tastemaker.config.evaluation import EvaluateConfig
from tastemaker.config.sections import PanelConfig, SamplingConfig
from tastemaker.core.batching import streamed
from tastemaker.core.errors import TastemakerError
from tastemaker.core.lazy_torch import torch
from tastemaker.datasets.prompts.sources import load_prompts
from tastemaker.metrics.clusters import mean_interval
from tastemaker.metrics.win_rate import win_rate
from tastemaker.preflight import check, expect
from tastemaker.scorers.nuisances import NUISANCES, Nuisance
from tastemaker.scorers.pool import check_scores, load_scorer
from tastemaker.storage.images import decode
from tastemaker.storage.parquet import read_table
from tastemaker.storage.pool import Pool

FOOLED = 0.52
"""A nuisance fools a scorer where the whole 95% interval of its win rate lies above this."""

Rows = Iterator[dict[str, Any]]
"""Rows of a pool: candidate_id, prompt and image."""

UNCHANGED = "unchanged"
CHANGES: dict[str, Nuisance] = {UNCHANGED: Image.Image.copy, **NUISANCES}


def nuisance_panel(config: PanelConfig, rows: Rows) -> dict[str, Any]:
    """Score pictures as they are and after every nuisance of `NUISANCES`, and compare.

    The win rate is that of the changed pictures against the unchanged ones, ties counted half; the
    difference is the mean over pairs in standard deviations of the unchanged pictures' scores.
    Intervals take the pictures of a prompt as one cluster.

    Args:
        config: The scorer and how to run it.
        rows: From `pool_rows` or `drawn_rows`; none is kept.

    Returns:
        JSON-like: the scorer, numbers of images and prompts, mean and sd of the scores, and by
        nuisance `win_rate`, `difference` (None where all scores are equal) and `fools`.

    Raises:
        TastemakerError: The scorer cannot be loaded, or a score is NaN or infinite.
    """
    prompts, scores = _scores(config, rows)
    base = scores.pop(UNCHANGED)
    spread = pstdev(base)
    return {
        "schema": 1,
        "scorer": config.scorer.model_dump(mode="json", exclude_none=True),
        "images": len(base),
        "prompts": len(set(prompts)),
        "mean": fmean(base),
        "sd": spread,
        "fooled_above": FOOLED,
        "nuisances": {
            name: _entry(changed, base, prompts, spread) for name, changed in scores.items()
        },
    }


def _scores(config: PanelConfig, rows: Rows) -> tuple[list[str], dict[str, list[float]]]:
    """Return the prompts, and the scores of every change."""
    scorer = load_scorer(config.scorer, config.device, config.dtype)
    prompts, scores = list[str](), defaultdict[str, list[float]](list)
    with tqdm(desc=f"changes by {config.scorer.column}", unit="images") as bar:
        for part in map(list, streamed(rows, config.batch_size)):
            images = [decode(row["image"]["bytes"], row["candidate_id"]) for row in part]
            asked = [row["prompt"] for row in part]
            for name, change in CHANGES.items():
                values = torch.as_tensor(scorer([change(image) for image in images], asked))
                check_scores(values, config.scorer.column, part)
                scores[name] += values.tolist()
            prompts += asked
            bar.update(len(part))
    return prompts, scores


def _entry(
    changed: Sequence[float], base: Sequence[float], prompts: Sequence[str], spread: float
) -> dict[str, Any]:
    rate = win_rate(changed, base, prompts)
    entry: dict[str, Any] = {
        "win_rate": rate.value,
        "win_rate_low": rate.low,
        "win_rate_high": rate.high,
        "difference": None,
        "fools": rate.low > FOOLED,
    }
    if spread:
        gains = [(new - old) / spread for new, old in zip(changed, base, strict=True)]
        entry["difference"] = mean_interval(gains, prompts).mean
    return entry


def pool_rows(config: PanelConfig, folder: Path) -> Rows:
    """Read the pictures of a pool, after the options and the folder were checked.

    Args:
        config: Of the panel.
        folder: A finished pool.

    Raises:
        TastemakerError: The scorer's weights are missing, it is an ensemble, or the folder is not
            a pool.
    """
    _check(config)
    expect(folder, "pool")
    shards = Pool(folder).shards()
    columns = ("candidate_id", "prompt", "image")
    return chain.from_iterable(read_table(shard, columns).to_pylist() for shard in shards)


def drawn_rows(config: PanelConfig, evaluation: EvaluateConfig, number: int) -> Rows:
    """Draw the base of an evaluation once for each of its first prompts.

    Args:
        config: Of the panel.
        evaluation: Base, prompts and sampling options.
        number: Pictures; fewer where there are fewer prompts.

    Raises:
        TastemakerError: The scorer's weights are missing, it is an ensemble, `number` is not
            positive, or the model cannot be loaded.
    """
    from tastemaker.sampling.generate import generate

    _check(config)
    if number < 2:
        raise TastemakerError(f"--images is {number}; give 2 or more.")
    # The evaluation's switches are those of its policy.
    sampling = {name: getattr(evaluation, name) for name in SamplingConfig.model_fields}
    del sampling["adapter"]
    texts = {"name": "texts", "prompts": load_prompts(evaluation.prompts)[:number]}
    options = {"model": evaluation.base, "prompts": texts, "num_candidates": 1} | sampling
    with TemporaryDirectory() as folder:
        pool = generate(output=Path(folder) / "pool", keep_latents=False, **options)
        return iter(list(pool_rows(config, pool)))


def _check(config: PanelConfig) -> None:
    check(config)
    if config.scorer.members:
        raise TastemakerError(
            f"{config.scorer.name!r} is an ensemble, on the scale of one pool; give one of its"
            f" scorers: {', '.join(config.scorer.members)}."
        )


def table(found: Mapping[str, Any]) -> str:
    """Write what `nuisance_panel` returned as text, one line per nuisance."""
    label = found["scorer"].get("label") or found["scorer"]["name"]
    counts = f"{found['images']} images of {found['prompts']} prompts, sd {found['sd']:.4g}"
    lines = [
        f"{label} on {counts}: changed images against unchanged ones",
        f"{'':<24}{'wins [95% interval]':<26}difference in sd",
    ]
    for name, entry in found["nuisances"].items():
        low, high = 100 * entry["win_rate_low"], 100 * entry["win_rate_high"]
        wins = f"{100 * entry['win_rate']:.1f} % [{low:.1f}, {high:.1f}]"
        gain = "-" if entry["difference"] is None else f"{entry['difference']:+.3f}"
        lines.append(f"{name:<24}{wins:<26}{gain}{'   fools it' if entry['fools'] else ''}")
    fooled = [name for name, entry in found["nuisances"].items() if entry["fools"]]
    verdict = ", ".join(fooled) or "none that these images show"
    return "\n".join([*lines, f"Fooled (all of the interval over {FOOLED:.0%}) by: {verdict}."])
