"""The page's figures of scores and training: one small panel each, readable on a phone."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, PercentFormatter

from tastemaker.reporting.svg import COLOURS, inline_figure

MOST_POINTS = 300
"""Longer curves are averaged over runs of steps: a panel has no more pixels than this."""

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """One row of the win rate figure: a share in [0, 1] with its 95% interval."""

    label: str
    colour: str
    value: float
    low: float
    high: float


def model_colours(base: str, challengers: Sequence[str]) -> dict[str, str]:
    """Give each model a colour of the page, its own up to seven challengers; then they repeat."""
    roles = ["policy", *(role for role in COLOURS if role.startswith("other-"))]
    return {base: "base", **dict(zip(challengers, itertools.cycle(roles), strict=False))}


def win_rates(intervals: Sequence[Interval]) -> Markup:
    """Draw win rates as dots with whiskers around the 50% line.

    Args:
        intervals: From top to bottom.

    Returns:
        The SVG element.
    """
    with inline_figure("win-rates", height=0.75 + 0.42 * len(intervals)) as (axes, svg):
        axes.axvline(0.5, color=COLOURS["muted"], linewidth=1.2, dashes=(4, 3))
        for row, held in enumerate(reversed(intervals)):
            colour = COLOURS[held.colour]
            axes.plot([held.low, held.high], [row, row], color=colour, linewidth=2.4)
            axes.plot([held.value], [row], "o", color=colour, markersize=8)
        axes.set_yticks(range(len(intervals)), [held.label for held in reversed(intervals)])
        axes.tick_params(axis="y", labelcolor=COLOURS["ink"])
        axes.set_ylim(-0.6, len(intervals) - 0.4)
        axes.set_xlim(0.0, 1.0)
        axes.set_xticks([0.0, 0.25, 0.5, 0.75, 1.0])
        axes.xaxis.set_major_formatter(PercentFormatter(1.0))
        axes.grid(axis="y", visible=False)
    return Markup("".join(svg))


def distributions(scorer: str, scores: Mapping[str, Array], colours: Mapping[str, str]) -> Markup:
    """Draw the score distribution of each model: outline, fill, and the mean as a line.

    Args:
        scorer: Whose scores.
        scores: Finite scores of each model.
        colours: Colour of each model.

    Returns:
        The SVG element.
    """
    everything = np.concatenate(list(scores.values()))
    most = max(len(values) for values in scores.values())
    number = int(np.clip(round(most**0.5), 8, 30))
    bins: list[float] = np.histogram_bin_edges(everything, bins=number).tolist()
    with inline_figure(f"scores-{scorer}") as (axes, svg):
        for model, values in scores.items():
            colour = COLOURS[colours[model]]
            share = np.full(len(values), 1.0 / len(values))
            axes.hist(values, bins, weights=share, histtype="stepfilled", color=colour, alpha=0.16)
            axes.hist(values, bins, weights=share, histtype="step", color=colour, linewidth=1.6)
            axes.axvline(float(values.mean()), color=colour, linewidth=1.4, dashes=(4, 3))
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.set_xlabel("score")
        axes.set_ylabel("share of images")
        axes.grid(axis="x", visible=False)
    return Markup("".join(svg))


def curve(
    name: str,
    steps: Array,
    lines: Mapping[str, Array],
    colours: Mapping[str, str],
    level: float | None = None,
    smooth: bool = True,
) -> Markup:
    """Draw raw values faintly and their moving average over them.

    Args:
        name: Of the panel.
        steps: Optimizer steps, shape `[steps]`.
        lines: One or more series of that shape; gaps are NaN.
        colours: Colour of each series.
        level: Value of a dashed horizontal line, if any.
        smooth: False draws the raw values alone, for a series without noise.

    Returns:
        The SVG element.
    """
    with inline_figure(f"curve-{name}") as (axes, svg):
        if level is not None:
            axes.axhline(level, color=COLOURS["muted"], linewidth=1.0, dashes=(4, 3))
        for key, values in lines.items():
            colour = COLOURS[colours[key]]
            if smooth:
                axes.plot(_thin(steps), _thin(values), color=colour, linewidth=0.9, alpha=0.28)
                values = moving_average(values, smoothing_window(len(steps)))
            axes.plot(_thin(steps), _thin(values), color=colour)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(6))
        axes.set_xlabel("optimizer step")
        axes.margins(x=0.01)
        axes.grid(axis="x", visible=False)
    return Markup("".join(svg))


def legend_above(axes: Axes, columns: int = 2) -> None:
    """Draw a figure's legend above its axes, where it covers nothing."""
    axes.legend(
        frameon=False,
        fontsize=8,
        ncols=columns,
        loc="lower left",
        bbox_to_anchor=(0.0, 1.02),
        borderaxespad=0.0,
        handletextpad=0.4,
    )


def smoothing_window(steps: int) -> int:
    """Return the width of the moving average in steps: a twentieth of the run, and odd."""
    return 2 * (steps // 40) + 1


def moving_average(values: Array, width: int) -> Array:
    """Average each value with its neighbours; gaps and values that are not finite do not count.

    Args:
        values: Shape `[steps]`.
        width: Odd number of values in the window, which is cut off at both ends.

    Returns:
        Shape `[steps]`; NaN where the window holds nothing finite.

    Example:
        >>> moving_average(np.array([1.0, 2.0, 6.0]), 3).tolist()
        [1.5, 3.0, 4.0]
    """
    finite = np.isfinite(values)
    ones = np.ones(width)
    half = width // 2
    totals = np.convolve(np.where(finite, values, 0.0), ones)[half : half + len(values)]
    counts = np.convolve(finite.astype(float), ones)[half : half + len(values)].round()
    return np.divide(totals, counts, out=np.full(len(values), np.nan), where=counts > 0)


def _thin(values: Array) -> Array:
    """Average runs of neighbours until at most `MOST_POINTS` values are left."""
    if len(values) <= MOST_POINTS:
        return np.where(np.isfinite(values), values, np.nan)
    parts = [part[np.isfinite(part)] for part in np.array_split(values, MOST_POINTS)]
    return np.array([part.mean() if len(part) else np.nan for part in parts])
