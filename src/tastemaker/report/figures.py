"""Figures as inline SVG: one small panel each, so that a phone shows them at reading size.

Colours are written as CSS variables, so that one figure serves the light and the dark page, and
text stays text, in the page's font. The same numbers give the same bytes.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
import numpy.typing as npt
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

# Matplotlib wants real colours; each of these stands for a CSS variable of the page.
COLOURS = {
    "ink": "#010203",
    "muted": "#010204",
    "line": "#010205",
    "base": "#010206",
    "policy": "#010207",
    "chosen": "#010208",
    "rejected": "#010209",
    "other-1": "#01020a",
    "other-2": "#01020b",
    "other-3": "#01020c",
}

# What they are where a figure is looked at by itself: the light page's colours.
PRINT = {
    "paper": "#ffffff",
    "ink": "#1f2126",
    "muted": "#666a73",
    "line": "#e3e1dc",
    "base": "#8b8f99",
    "policy": "#3f5bd4",
    "chosen": "#0b8068",
    "rejected": "#c2571a",
    "other-1": "#9c4dbb",
    "other-2": "#a0761b",
    "other-3": "#2f8fa8",
}

STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.size": 10.0,
    "figure.figsize": (4.5, 2.8),
    "figure.dpi": 72.0,
    "figure.constrained_layout.use": True,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.formatter.limits": (-3, 4),
    "axes.formatter.use_mathtext": False,
    "grid.linewidth": 0.6,
    "xtick.major.size": 0.0,
    "ytick.major.size": 0.0,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
}

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
    """Give each model a colour of the page: base and first challenger have their own."""
    roles = ["policy", "other-1", "other-2", "other-3"]
    named = {name: roles[min(i, len(roles) - 1)] for i, name in enumerate(challengers)}
    return {base: "base", **named}


def win_rates(intervals: Sequence[Interval]) -> Markup:
    """Draw win rates as dots with whiskers around the 50% line.

    Args:
        intervals: From top to bottom.

    Returns:
        The SVG element.
    """
    with _figure("win-rates", height=0.75 + 0.42 * len(intervals)) as (axes, svg):
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
    with _figure(f"scores-{scorer}") as (axes, svg):
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
    with _figure(f"curve-{name}") as (axes, svg):
        if level is not None:
            axes.axhline(level, color=COLOURS["muted"], linewidth=1.0, dashes=(4, 3))
        for key, values in lines.items():
            colour = COLOURS[colours[key]]
            if smooth:
                axes.plot(_thin(steps), _thin(values), color=colour, linewidth=0.9, alpha=0.28)
                values = moving_average(values, window(len(steps)))
            axes.plot(_thin(steps), _thin(values), color=colour)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(6))
        axes.set_xlabel("optimizer step")
        axes.margins(x=0.01)
        axes.grid(axis="x", visible=False)
    return Markup("".join(svg))


def window(steps: int) -> int:
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


def styled(draw: Callable[[Axes], None], palette: Mapping[str, str]) -> Figure:
    """Make a figure of one panel in the page's style, whatever the reader's matplotlibrc says.

    Args:
        draw: Draws on the axes, with the palette's colours.
        palette: Role to colour: `PRINT`, or `COLOURS` for the page.

    Returns:
        A matplotlib figure, bound to no window.
    """
    with _panel(palette) as (figure, axes):
        draw(axes)
    return figure


def to_svg(figure: Figure, name: str) -> Markup:
    """Write a figure in `COLOURS` as an element of the page.

    Args:
        figure: The figure.
        name: Unique on the page; keeps its ids apart from those of other figures.

    Returns:
        The SVG element.
    """
    file = io.StringIO()
    FigureCanvasSVG(figure)
    with _style(COLOURS, {"svg.hashsalt": name}):
        figure.savefig(
            file,
            format="svg",
            transparent=True,
            metadata={"Date": None, "Creator": None, "Format": None, "Type": None},
        )
    return Markup(_inline(file.getvalue(), name))


@contextmanager
def _style(palette: Mapping[str, str], more: Mapping[str, Any] | None = None) -> Iterator[None]:
    colours = {
        "figure.facecolor": palette.get("paper", "none"),
        "axes.edgecolor": palette["line"],
        "axes.labelcolor": palette["muted"],
        "grid.color": palette["line"],
        "text.color": palette["ink"],
        "xtick.color": palette["muted"],
        "ytick.color": palette["muted"],
    }
    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # the reader's own matplotlibrc must not change the page
        matplotlib.rcParams.update({**STYLE, **colours, **(more or {})})
        yield


@contextmanager
def _panel(
    palette: Mapping[str, str], height: float | None = None
) -> Iterator[tuple[Figure, Axes]]:
    """Yield an empty figure of one panel, to be drawn on in the page's style."""
    with _style(palette):
        figure = Figure()
        if height is not None:
            figure.set_figheight(height)
        yield figure, figure.add_subplot()


@contextmanager
def _figure(name: str, height: float | None = None) -> Iterator[tuple[Axes, list[str]]]:
    """Yield axes to draw on, and a list that holds the SVG once the block has ended."""
    svg: list[str] = []
    with _panel(COLOURS, height) as (figure, axes):
        yield axes, svg
    svg.append(to_svg(figure, name))


def _inline(document: str, name: str) -> str:
    """Turn an SVG document into an element of the page."""
    element = document[document.index("<svg") :]
    # Matplotlib's style sheet would apply to the whole page, and its metadata to nothing.
    element = re.sub(r"<(metadata|style)\b.*?</\1>", "", element, flags=re.DOTALL)
    for role, colour in COLOURS.items():
        element = element.replace(colour, f"var(--{role})")
    # Several figures share one page: keep only the ids that are used, and tell them apart.
    prefix = re.sub(r"[^a-z0-9-]", lambda hit: f"_{ord(hit[0]):x}_", name)
    used = set(re.findall(r"[\"(]#([\w-]+)[\")]", element))
    element = re.sub(
        r' id="([^"]+)"',
        lambda hit: f' id="{prefix}-{hit[1]}"' if hit[1] in used else "",
        element,
    )
    element = re.sub(r"([\"(])#([\w-]+)([\")])", rf"\1#{prefix}-\2\3", element)
    opening, rest = element.split(">", 1)
    opening = re.sub(r' (?:width|height|version|xmlns(?::xlink)?)="[^"]*"', "", opening)
    return f'{opening} aria-hidden="true">{rest.strip()}'
