"""Comparison of scored images: means, paired differences and win rates, clustered by prompt."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tastemaker.core.errors import TastemakerError
from tastemaker.metrics.clusters import mean_interval
from tastemaker.metrics.win_rate import beat_ratio, win_matrix, win_rate
from tastemaker.storage.parquet import read_table
from tastemaker.storage.pool import Pool

if TYPE_CHECKING:
    import pyarrow as pa

IMAGE = ("prompt_id", "prompt", "seed")
KEYS = ("model", *IMAGE, "guidance_scale")
"""Columns of a table of scores beside those of the scorers."""


def score_table(
    pools: Mapping[str, Pool], scorers: Sequence[str], guidance: Mapping[str, float | None]
) -> pa.Table:
    """Gather the scores of every model's images, as `scores.parquet` keeps them.

    Args:
        pools: Model name to scored pool.
        scorers: Columns to take.
        guidance: Guidance scale of each model's images; None for the family's own.

    Returns:
        A row per image: `KEYS` and a column per scorer, in the pools' order.

    Raises:
        TastemakerError: A score is missing or not finite.
    """
    import pyarrow as pa

    tables = []
    for name, pool in pools.items():
        scores = pool.scores().select([*IMAGE, *scorers])
        model = pa.repeat(name, len(scores))
        scale = pa.repeat(pa.scalar(guidance[name], pa.float64()), len(scores))
        tables.append(
            scores.add_column(0, "model", model).add_column(len(KEYS) - 1, "guidance_scale", scale)
        )
    return pa.concat_tables(tables)


def compare(scores: pa.Table | Path | str) -> dict[str, Any]:
    """Summarise the scores of images that models drew for equal prompts and seeds.

        tastemaker.compare("runs/demo/scores.parquet")

    Standard errors and intervals take the prompts as clusters: images of one prompt are not
    independent. The difference to the base is of images of one prompt and seed, so that its error
    is usually far below those of the two means.

    Args:
        scores: A table of `score_table`, or its file; one of the models is "base".

    Returns:
        What `report.json` says of scores; the standard error of a single prompt is None.

    Raises:
        TastemakerError: The models have other prompts or seeds, none is the base, or the file is
            missing, torn or lacks a column.
    """
    if isinstance(scores, Path | str):
        scores = read_table(Path(scores))
    tables = _by_model(scores)
    clusters = tables["base"]["prompt_id"].to_pylist()
    by_scorer = {
        scorer: {name: table[scorer].to_pylist() for name, table in tables.items()}
        for scorer in scores.column_names
        if scorer not in KEYS
    }
    models = {
        name: {
            "guidance_scale": table["guidance_scale"][0].as_py(),
            "scores": {
                scorer: _entry(held[name], None if name == "base" else held["base"], clusters)
                for scorer, held in by_scorer.items()
            },
        }
        for name, table in tables.items()
    }
    result: dict[str, Any] = {
        "schema": 1,
        "base": "base",
        "prompts": len(set(clusters)),
        "images": len(clusters),
        "models": models,
    }
    if shares := [scorer for scorer, held in by_scorer.items() if _is_share(held)]:
        result["shares"] = shares
    if len(tables) > 2:
        result["win_rates"] = {
            scorer: _against_each(held, clusters) for scorer, held in by_scorer.items()
        }
    return result


def _is_share(scores: Mapping[str, list[float]]) -> bool:
    """True where every image has a score of 0 or 1, so that a mean is a share of images."""
    return {0.0, 1.0}.issuperset(value for values in scores.values() for value in values)


def _by_model(scores: pa.Table) -> dict[str, pa.Table]:
    """Return the rows of each model, all of the same prompts and seeds."""
    import pyarrow.compute as pc

    if missing := [name for name in KEYS if name not in scores.column_names]:
        raise TastemakerError(
            f"the table of scores has no column {missing[0]!r}; give the scores.parquet of an"
            " evaluation."
        )
    tables = {
        name: scores.filter(pc.equal(scores["model"], name))
        for name in scores["model"].unique().to_pylist()
    }
    if "base" not in tables:
        raise TastemakerError(f"no model is the base: the scores are of {', '.join(tables)}.")
    for name, table in tables.items():
        for key in ("prompt_id", "seed"):
            if table[key].to_pylist() != tables["base"][key].to_pylist():
                raise TastemakerError(
                    f"images of {name!r} have other prompts or seeds than the base's; make both"
                    " anew."
                )
    return tables


def _entry(
    values: list[float], base: list[float] | None, clusters: Sequence[str]
) -> dict[str, float | None]:
    """Return the entry of one model under one scorer; `base` is None for the base itself."""
    entry = _interval("mean", values, clusters)
    if base is None:
        return entry
    gains = [value - other for value, other in zip(values, base, strict=True)]
    rate = win_rate(values, base, clusters)
    return {
        **entry,
        **_interval("difference", gains, clusters),
        "win_rate": rate.value,
        "win_rate_low": rate.low,
        "win_rate_high": rate.high,
        "beat_ratio": beat_ratio(values, base),
    }


def _interval(name: str, values: list[float], clusters: Sequence[str]) -> dict[str, float | None]:
    """Return a mean, its standard error and its interval under the names of `report.json`."""
    found = mean_interval(values, clusters)
    return {
        name: found.mean,
        "stderr" if name == "mean" else f"{name}_stderr": known(found.stderr),
        f"{name}_low": known(found.low),
        f"{name}_high": known(found.high),
    }


def known(value: float) -> float | None:
    """Return a number as JSON has it: None for NaN."""
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
