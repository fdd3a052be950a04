"""Names beside the points of a figure, moved apart until none covers another."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.text import Annotation, Text

DOT = 4.0
"""Radius of a point, in figure points."""

DISTANCES = (5.0, 10.0, 18.0, 28.0, 40.0, 55.0)
"""How far from its point a label may lie, in figure points."""

DIRECTIONS = 16
ROUNDS = 3
NEAR = 10.0
"""Beyond this a line leads from the label to its point."""

# What a label may cost: units of area weigh by what is covered, and a distance by itself.
OUTSIDE, LABELS, OBSTACLES, CROSSED = 100.0, 20.0, 5.0, 600.0


class Box(NamedTuple):
    """A rectangle, in figure points."""

    left: float
    bottom: float
    right: float
    top: float

    def overlap(self, other: Box) -> float:
        """Area that both cover."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.top, other.top) - max(self.bottom, other.bottom)
        return max(width, 0.0) * max(height, 0.0)

    @property
    def area(self) -> float:
        """Width times height."""
        return (self.right - self.left) * (self.top - self.bottom)


class Spot(NamedTuple):
    """A place for a label.

    Attributes:
        point: What the label names.
        box: What it covers.
        distance: Of its near edge from the point.
    """

    point: tuple[float, float]
    box: Box
    distance: float

    @property
    def offset(self) -> tuple[float, float]:
        """From the point to the middle of the label."""
        (x, y), (left, bottom, right, top) = self.point, self.box
        return (left + right) / 2 - x, (bottom + top) / 2 - y

    def crosses(self, other: Box) -> bool:
        """Whether the line from the point to the label runs over a box."""
        if self.distance <= NEAR:
            return False
        (x, y), (across, up) = self.point, self.offset
        # Not from the point itself: near others, it may lie on one of them.
        start = min(2 * DOT / math.hypot(across, up), 1.0)
        steps = [start + (1 - start) * i / 12 for i in range(13)]
        return any(
            other.left < x + across * step < other.right
            and other.bottom < y + up * step < other.top
            for step in steps
        )


def place(
    points: Sequence[tuple[float, float]],
    sizes: Sequence[tuple[float, float]],
    obstacles: Sequence[Box],
    bounds: Box,
) -> list[Spot]:
    """Find a place for every label near its point.

    Each label in turn takes the spot where it covers least of the other labels and the obstacles,
    and of those the nearest; a few rounds let early labels make room for late ones.

    Args:
        points: What the labels name, in figure points.
        sizes: Width and height of each label.
        obstacles: What labels should not cover.
        bounds: What they should not leave.

    Returns:
        A spot a label.

    Example:
        >>> first, second = place([(50, 50), (50, 50)], [(30, 10)] * 2, [], Box(0, 0, 100, 100))
        >>> first.box.overlap(second.box)
        0.0
    """
    spots: dict[int, Spot] = {}
    for _ in range(ROUNDS):
        before = dict(spots)
        for i, (point, size) in enumerate(zip(points, sizes, strict=True)):
            others = [spot for j, spot in spots.items() if j != i]
            spots[i] = _best(_around(point, size), others, obstacles, bounds)
        if spots == before:
            break
    return [spots[i] for i in range(len(points))]


def annotate(
    axes: Axes,
    names: Sequence[str],
    points: Sequence[tuple[float, float]],
    bars: Sequence[tuple[float, float]],
    ink: str,
    line: str,
) -> list[Annotation]:
    """Write names beside points that have bars in both directions.

    Args:
        axes: Where the points are drawn; its limits must be final.
        names: One a point.
        points: In data coordinates.
        bars: Half the width and half the height of each point's cross, in data coordinates.
        ink: Colour of the names.
        line: Colour of the lines that lead to far names.

    Returns:
        The names as matplotlib's annotations.
    """
    written = [
        axes.annotate(
            name,
            point,
            xytext=(0, 0),
            textcoords="offset points",
            ha="center",
            va="center",
            color=ink,
            fontsize=9,
            arrowprops={"arrowstyle": "-", "color": line, "linewidth": 0.7, "shrinkB": 4},
        )
        for name, point in zip(names, points, strict=True)
    ]
    # Only a laid-out figure knows where data lie and how large text is.
    axes.figure.draw_without_rendering()
    scale = 72.0 / axes.figure.dpi
    there = [tuple(axes.transData.transform(point) * scale) for point in points]
    extents = [Text.get_window_extent(text) for text in written]  # without its line
    spots = place(
        there,
        [(extent.width * scale + 3, extent.height * scale) for extent in extents],
        [box for point, bar in zip(points, bars, strict=True) for box in _cross(axes, point, bar)],
        Box(*(value * scale for value in axes.get_window_extent().extents)),
    )
    for text, spot in zip(written, spots, strict=True):
        text.set_position(spot.offset)
        if spot.distance <= NEAR:
            text.arrow_patch.set_visible(False)
    return written


def _around(point: tuple[float, float], size: tuple[float, float]) -> Iterator[Spot]:
    """Spots around a point: nearest first, beginning at its upper right."""
    (x, y), (width, height) = point, size
    for distance in DISTANCES:
        for step in range(DIRECTIONS):
            angle = math.pi / 4 + math.tau * step / DIRECTIONS
            across = x + math.cos(angle) * (distance + width / 2)
            up = y + math.sin(angle) * (distance + height / 2)
            box = Box(across - width / 2, up - height / 2, across + width / 2, up + height / 2)
            yield Spot(point, box, distance)


def _dot(point: tuple[float, float]) -> Box:
    x, y = point
    return Box(x - DOT, y - DOT, x + DOT, y + DOT)


def _best(
    spots: Iterator[Spot], others: Sequence[Spot], obstacles: Sequence[Box], bounds: Box
) -> Spot:
    """The cheapest spot, the first among equals."""
    best = next(spots)
    least = _cost(best, others, obstacles, bounds)
    for spot in spots:
        if spot.distance >= least:  # no spot costs less than its distance, and those rise
            break
        cost = _cost(spot, others, obstacles, bounds)
        if cost < least:
            best, least = spot, cost
    return best


def _cost(spot: Spot, others: Sequence[Spot], obstacles: Sequence[Box], bounds: Box) -> float:
    outside = spot.box.area - spot.box.overlap(bounds)
    labels = sum(spot.box.overlap(other.box) for other in others)
    covered = sum(spot.box.overlap(obstacle) for obstacle in obstacles)
    crossed = sum(
        spot.crosses(other.box) + other.crosses(spot.box) + spot.crosses(_dot(other.point))
        for other in others
    )
    seen = OUTSIDE * outside + LABELS * labels + OBSTACLES * covered + CROSSED * crossed
    return seen + spot.distance


def _cross(
    axes: Axes, point: tuple[float, float], bar: tuple[float, float], thickness: float = 2.0
) -> Iterator[Box]:
    """The point and the two bars of its cross."""
    scale = 72.0 / axes.figure.dpi
    x, y = axes.transData.transform(point) * scale
    right, top = axes.transData.transform((point[0] + bar[0], point[1] + bar[1])) * scale
    yield _dot((x, y))
    yield Box(2 * x - right, y - thickness, right, y + thickness)
    yield Box(x - thickness, 2 * y - top, x + thickness, top)
