"""Rows of a table of measurements, each of which may fail alone."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping
from typing import Any

import torch

from tastemaker.core.errors import TastemakerError


def guarded(options: str, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Measure a row, and free the memory that it took.

    Args:
        options: Its name.
        measure: Returns its values.

    Returns:
        The values after `options`; `error` in their place where memory did not suffice or the
        options do not work here.
    """
    try:
        return {"options": options, **measure()}
    except (TastemakerError, RuntimeError, MemoryError) as error:  # torch's lack of memory too
        return {"options": options, "error": " ".join(str(error).split())[:200]}
    finally:
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def training_table(rows: list[dict[str, Any]]) -> str:
    """Write rows of `profile_training` as Markdown."""
    return _table(
        ("options", "pairs/s", "of the floor", "over the plain step", "utilisation", "peak memory"),
        rows,
        lambda row: (
            between(row["pairs_per_second"]),
            between(row["of_floor"]),
            between(row["over_plain"]),
            f"{100 * row['utilisation']['median']:.0f} %",
            gigabytes(row["peak_bytes"]),
        ),
    )


def drawing_table(rows: list[dict[str, Any]]) -> str:
    """Write rows of `profile_drawing` as Markdown."""
    names = ("options", "images/s", "steps", "batch", "ms per step", "ms to decode", "peak memory")
    return _table(
        names,
        rows,
        lambda row: (
            between(row["images_per_second"]),
            str(row["num_inference_steps"]),
            str(row["images"]),
            *(f"{1000 * each['median']:.0f}" for each in row["seconds"].values()),
            gigabytes(row["peak_bytes"]),
        ),
    )


def parts_table(parts: Mapping[str, Mapping[str, float]]) -> str:
    """Write the shares of the parts of two steps as Markdown."""
    lines = ["| part | step | plain step |", "|---|---:|---:|"]
    lines += [
        f"| {name} | {100 * share:.1f} % | {100 * parts['plain'][name]:.1f} % |"
        for name, share in parts["step"].items()
    ]
    return "\n".join(lines)


def between(values: Mapping[str, float]) -> str:
    """Write a spread as median and range.

    Example:
        >>> between({"median": 0.712, "min": 0.7, "max": 0.75})
        '0.71 [0.70, 0.75]'
    """
    digits = 2 if values["median"] < 10 else 1 if values["median"] < 100 else 0
    median, low, high = (f"{values[each]:.{digits}f}" for each in ("median", "min", "max"))
    return f"{median} [{low}, {high}]"


def gigabytes(size: int | None) -> str:
    """Write bytes in GB; empty for None."""
    return "" if size is None else f"{size / 1e9:.2f} GB"


def _table(
    names: tuple[str, ...],
    rows: list[dict[str, Any]],
    cells: Callable[[dict[str, Any]], tuple[str, ...]],
) -> str:
    lines = [f"| {' | '.join(names)} |", "|---" + "|---:" * (len(names) - 1) + "|"]
    for row in rows:
        values = (row["error"],) + ("",) * (len(names) - 2) if "error" in row else cells(row)
        lines.append(f"| {row['options']} | {' | '.join(values)} |")
    return "\n".join(lines)
