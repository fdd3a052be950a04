"""Figures of pairs on the plane: their cloud with the rule's window, and histograms of it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle, Wedge
from matplotlib.ticker import MaxNLocator

from tastemaker.reporting.figures import Array, legend_above
from tastemaker.reporting.plane.axes import AngleWindow, Plane
from tastemaker.reporting.plane.clouds import Cloud
from tastemaker.reporting.plane.models import PREFIX
from tastemaker.reporting.samples import quantiles
from tastemaker.reporting.svg import Palette, Panel

MOST_DOTS = 1000
"""Of more kept or dropped pairs, an even choice by length is drawn."""

BIN = 10
"""Degrees of one bar of the histogram of angles."""


def panels(held: Cloud, plane: Plane) -> list[Panel]:
    """Draw a cloud, and the histograms of its weighted scores and of its angles.

    Args:
        held: The pairs.
        plane: The axes, and the window.

    Returns:
        Three figures; one sentence in their place where the cloud has no extent.
    """
    if not held.length.any():
        why = (
            "Nothing to draw: no two candidates of a prompt differ."
            if len(held.length)
            else f"Nothing to draw: the candidates are gone, or lack {plane.fidelity} or"
            f" {plane.prompt}."
        )
        return [Panel(f"{PREFIX}{held.name}-cloud", "Pair differences", why, alt=why)]
    counted = f"{held.kept.sum()} of {len(held.kept)} ordered pairs kept"
    window = plane.window

    def figure(name: str, title: str, alt: str, meaning: str, draw: Draw) -> Panel:
        return Panel(
            f"{PREFIX}{held.name}-{name}",
            title,
            meaning,
            lambda axes, palette: draw(axes, held, plane, palette),
            f"{alt} {counted}{_asked(window)}.",
        )

    return [
        figure(
            "cloud",
            "Pair differences",
            f"Scatter of dIS and dTS, differences in {plane.fidelity} and {plane.prompt}.",
            "A dot is an ordered pair of one prompt's candidates, chosen minus rejected: right of"
            " zero the chosen is closer to the subject, above zero closer to the prompt. Both axes"
            f" have one scale, so that angles are true.{_read(window)}",
            _cloud,
        ),
        figure(
            "weighted",
            "Weighted score",
            f"Histogram of the difference in weighted score, {_sum(plane)}.",
            f"How far one sum of both scores, {_sum(plane)}, tells kept pairs from dropped ones."
            " Where the colours share a bar, no threshold on that sum chooses the same pairs.",
            _weighted,
        ),
        figure(
            "angle",
            "Angle",
            "Histogram of the angles of pair differences.",
            "Direction of pairs: 0 degrees is pure fidelity, 90 pure prompt; beyond 90 and below 0"
            " one score falls. One bar covers the angles of"
            f" {BIN} degrees.{' Dashed: the window.' if window else ''}",
            _angles,
        ),
    ]


Draw = Callable[[Axes, Cloud, Plane, Palette], None]


def _asked(window: AngleWindow | None) -> str:
    if window is None:
        return ""
    return (
        f"; the window is {_degrees(window.low)} to {_degrees(window.high)}"
        f" with dTS > {_number(window.threshold)}"
    )


def _read(window: AngleWindow | None) -> str:
    if window is None:
        return ""
    return " Shaded: the window of angles, above the threshold of dTS (dashed)."


def _cloud(axes: Axes, held: Cloud, plane: Plane, palette: Palette) -> None:
    # One scale for both axes, but no square where the scores spread unequally.
    reach = 1.08 * np.abs([held.d_is, held.d_ts]).max(axis=1)
    across, up = np.maximum(reach, reach.max() / 2).tolist()
    axes.figure.set_size_inches(4.5, 0.6 + 3.9 * min(up / across, 1.0))
    axes.set_xlim(-across, across)
    axes.set_ylim(-up, up)
    axes.set_aspect("equal")
    for line in (axes.axhline, axes.axvline):
        line(0.0, color=palette["line"], linewidth=1.2)
    if plane.window is not None:
        _window(axes, plane.window, across, up, palette)
    for kept, size, alpha in ((False, 2.5, 0.35), (True, 3.5, 0.8)):
        chosen = _even(held, held.kept == kept)
        axes.plot(
            held.d_is[chosen],
            held.d_ts[chosen],
            "o",
            markersize=size,
            markeredgewidth=0,
            color=palette[_role(kept)],
            alpha=alpha,
            label=_label(held, kept),
        )
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.set_xlabel(f"dIS ({plane.fidelity}{_unit(plane)})")
    axes.set_ylabel(f"dTS ({plane.prompt}{_unit(plane)})")
    legend_above(axes)


def _window(axes: Axes, window: AngleWindow, across: float, up: float, palette: Palette) -> None:
    """Draw the wedge of angles above the threshold, its edges with their degrees."""
    far = 2 * max(across, up)
    wedge = Wedge(
        (0, 0), far, window.low, window.high, color=palette["policy"], alpha=0.14, linewidth=0
    )
    axes.add_patch(wedge)
    above = Rectangle(
        (-across, window.threshold), 2 * across, up - window.threshold, transform=axes.transData
    )
    wedge.set_clip_path(above)
    axes.axhline(window.threshold, color=palette["muted"], linewidth=1.0, dashes=(4, 3))
    axes.annotate(
        f"dTS > {_number(window.threshold)}",
        (-across, window.threshold),
        xytext=(3, 3),
        textcoords="offset points",
        color=palette["muted"],
        fontsize=8,
    )
    for degrees, outwards in ((window.low, -90), (window.high, 90)):
        x, y = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
        end = 1 / max(abs(x) / across, abs(y) / up)
        axes.plot([0, x * end], [0, y * end], color=palette["policy"], linewidth=1.0)
        away = np.radians(degrees + outwards)
        axes.annotate(
            _degrees(degrees),
            (0.88 * x * end, 0.88 * y * end),
            xytext=(13 * np.cos(away), 9 * np.sin(away)),
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=9,
        )


def _weighted(axes: Axes, held: Cloud, plane: Plane, palette: Palette) -> None:
    values = held.weighted(plane.share)
    bins = np.histogram_bin_edges(values, bins=int(np.clip(round(len(values) ** 0.5), 8, 40)))
    _histogram(axes, held, values, bins, palette)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.set_xlabel(f"{_sum(plane)}{_unit(plane)}")


def _angles(axes: Axes, held: Cloud, plane: Plane, palette: Palette) -> None:
    bins = np.arange(-180.0, 180.0 + BIN, BIN)
    _histogram(axes, held, np.where(held.length > 0, held.angle, np.nan), bins, palette)
    if plane.window is not None:
        axes.margins(y=0.16)  # for the labels in degrees
        for degrees, side, away in (
            (plane.window.low, "right", -3),
            (plane.window.high, "left", 3),
        ):
            axes.axvline(degrees, color=palette["muted"], linewidth=1.0, dashes=(4, 3))
            axes.annotate(
                _degrees(degrees),
                (degrees, 1.0),
                xytext=(away, 0),
                xycoords=axes.get_xaxis_transform(),
                textcoords="offset points",
                ha=side,
                va="top",
                fontsize=9,
            )
    axes.set_xticks([-180, -90, 0, 90, 180])
    axes.set_xlabel("angle, degrees")


def _histogram(axes: Axes, held: Cloud, values: Array, bins: Array, palette: Palette) -> None:
    """Numbers of kept pairs, and those of dropped ones on top of them."""
    axes.hist(
        [values[held.kept & ~np.isnan(values)], values[~held.kept & ~np.isnan(values)]],
        bins=bins.tolist(),
        stacked=True,
        color=[palette[_role(True)], (palette[_role(False)], 0.5)],
        label=[_label(held, True), _label(held, False)],
        rwidth=0.92,
    )
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.set_ylabel("ordered pairs")
    axes.grid(axis="x", visible=False)
    legend_above(axes)


def _even(held: Cloud, among: npt.NDArray[np.bool_]) -> npt.NDArray[np.intp]:
    """Some of the pairs, evenly chosen from the shortest to the longest, both included."""
    ranked = np.flatnonzero(among)[np.argsort(held.length[among], kind="stable")]
    return ranked[quantiles(len(ranked), MOST_DOTS)]


def _sum(plane: Plane) -> str:
    return f"{plane.share:g} dTS + {1 - plane.share:g} dIS"


def _unit(plane: Plane) -> str:
    return ", standard deviations" if plane.zscored else ""


def _role(kept: bool) -> str:
    return "policy" if kept else "base"


def _label(held: Cloud, kept: bool) -> str:
    return f"{'kept' if kept else 'dropped'} ({(held.kept == kept).sum()})"


def _degrees(value: float) -> str:
    return f"{_number(value)}°"


def _number(value: float) -> str:
    return f"{value:g}".replace("-", "\N{MINUS SIGN}")
