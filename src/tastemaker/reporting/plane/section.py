"""A figure of the plane with its words: drawn for the page, or to be saved by itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tastemaker.reporting.svg import COLOURS, PRINT, styled, to_svg

Palette = Mapping[str, str]
"""Role to colour: `PRINT`, or `COLOURS` for the page."""


@dataclass(frozen=True)
class Drawing:
    """What a figure is called, what it shows, how to read it, and how it is drawn.

    Args:
        name: Short, unique among the figures of one run.
        title: Heading.
        alt: What it shows, for those who do not see it.
        meaning: How to read it; where nothing can be drawn, why.
        draw: Draws on the axes with the palette's colours; None where there is nothing to draw.
    """

    name: str
    title: str
    alt: str
    meaning: str
    draw: Callable[[Axes, Palette], None] | None = None

    @property
    def figure(self) -> Figure | None:
        """The figure by itself, in the light page's colours."""
        return self._styled(PRINT)

    @property
    def svg(self) -> Markup | None:
        """The figure as an element of the page."""
        figure = self._styled(COLOURS)
        return None if figure is None else to_svg(figure, f"plane-{self.name}")

    def _styled(self, palette: Palette) -> Figure | None:
        draw = self.draw
        return None if draw is None else styled(lambda axes: draw(axes, palette), palette)
