"""The page's style, and figures as inline SVG in it.

Colours are written as CSS variables, so that one figure serves the light and the dark page, and
text stays text, in the page's font. The same numbers give the same bytes.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import matplotlib
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

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
    "other-4": "#01020d",
    "other-5": "#01020e",
    "other-6": "#01020f",
}

# Colours of figures that are saved by themselves: the light page's.
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
    "other-4": "#c4507f",
    "other-5": "#5f7a1f",
    "other-6": "#7a5648",
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


Palette = Mapping[str, str]
"""Role to colour: `PRINT`, or `COLOURS` for the page."""


@dataclass(frozen=True)
class Panel:
    """A figure with its text, for the page or to be saved by itself.

    Args:
        name: Unique among the figures of a page.
        title: Heading.
        meaning: How to read it; the reason where there is nothing to draw.
        draw: Draws on axes with a palette's colours; None where there is nothing to draw.
        alt: Alternative text.
    """

    name: str
    title: str
    meaning: str
    draw: Callable[[Axes, Palette], None] | None = None
    alt: str = ""

    @property
    def figure(self) -> Figure | None:
        """The figure by itself, in the light page's colours."""
        return self._styled(PRINT)

    @cached_property
    def svg(self) -> Markup | None:
        """The figure as an element of the page."""
        figure = self._styled(COLOURS)
        return None if figure is None else to_svg(figure, self.name)

    def _styled(self, palette: Palette) -> Figure | None:
        draw = self.draw
        return None if draw is None else styled(lambda axes: draw(axes, palette), palette)


def styled(draw: Callable[[Axes], None], palette: Palette) -> Figure:
    """Make a figure of one panel in the page's style, independent of the user's matplotlibrc.

    Args:
        draw: Draws on the axes, with the palette's colours.
        palette: Role to colour.

    Returns:
        A matplotlib figure, bound to no window.
    """
    with _empty(palette) as (figure, axes):
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
def inline_figure(name: str, height: float | None = None) -> Iterator[tuple[Axes, list[str]]]:
    """Draw a figure of one panel for the page.

    Args:
        name: Unique on the page, as for `to_svg`.
        height: In inches; None for the style's.

    Yields:
        Axes to draw on, and a list that holds the SVG element once the block has ended.
    """
    svg: list[str] = []
    with _empty(COLOURS, height) as (figure, axes):
        yield axes, svg
    svg.append(to_svg(figure, name))


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
def _empty(
    palette: Mapping[str, str], height: float | None = None
) -> Iterator[tuple[Figure, Axes]]:
    """Yield an empty figure of one panel, to be drawn on in the page's style."""
    with _style(palette):
        figure = Figure()
        if height is not None:
            figure.set_figheight(height)
        yield figure, figure.add_subplot()


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
