"""Comparison of scored pools: means, paired differences and win rates, clustered by prompt."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from tastemaker.core.errors import TastemakerError
from tastemaker.metrics.clusters import mean_and_stderr
from tastemaker.metrics.win_rate import beat_ratio, win_matrix, win_rate
from tastemaker.storage.pool import Pool


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
        The content of `report.json`, schema 1; the standard error of a single prompt is None.

    Raises:
        TastemakerError: The pools have other prompts or seeds, or a score is missing or not finite.
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
    """Return the entry of one model under one scorer; `base` is None for the base itself."""
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
    """Return win rates of every model against every other."""
    return {
        name: {
            other: {"value": rate.value, "low": rate.low, "high": rate.high}
            for other, rate in rates.items()
        }
        for name, rates in win_matrix(scores, clusters).items()
    }
