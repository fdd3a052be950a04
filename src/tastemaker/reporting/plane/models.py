"""Models on the plane: means with intervals, and the Pareto front."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from tastemaker.metrics.clusters import two_sided_95
from tastemaker.reporting import summary
from tastemaker.reporting.figures import legend_above
from tastemaker.reporting.plane.axes import Plane
from tastemaker.reporting.run_contents import Contents
from tastemaker.reporting.svg import Palette, Panel

PREFIX = "plane-"


@dataclass(frozen=True)
class Position:
    """A model on the plane.

    Args:
        model: Its name.
        fidelity: Mean of the first score.
        prompt: Mean of the second score.
        fidelity_error: Half the width of the first mean's 95% interval.
        prompt_error: The same of the second.
    """

    model: str
    fidelity: float
    prompt: float
    fidelity_error: float = 0.0
    prompt_error: float = 0.0


@dataclass(frozen=True)
class Move:
    """A model's move on the plane, from the base.

    Args:
        model: Its name.
        d_is: Its mean fidelity minus the base's.
        d_ts: The same of the prompt.
        leads: True on the Pareto front of all models.
    """

    model: str
    d_is: float
    d_ts: float
    leads: bool

    @property
    def angle(self) -> float:
        """`atan2(dTS, dIS)` in degrees, -180 to 180; 0 is pure fidelity, 90 pure prompt."""
        return math.degrees(math.atan2(self.d_ts, self.d_is))


def pareto(points: Sequence[tuple[float, float]]) -> list[int]:
    """Find the points that no other one beats: none is as high on both axes and higher on one.

    Args:
        points: Two scores each, higher is better on both.

    Returns:
        Their indices, the first axis rising and so the second falling; equal points are all there.

    Example:
        >>> pareto([(0.7, 0.2), (0.6, 0.3), (0.6, 0.2)])
        [1, 0]
    """
    front: list[int] = []
    for i in sorted(range(len(points)), key=lambda i: (points[i], -i), reverse=True):
        if not front or points[i][1] > points[front[-1]][1] or points[i] == points[front[-1]]:
            front.append(i)
    return front[::-1]


def positions(contents: Contents, plane: Plane) -> list[Position]:
    """Return the models of a run that were measured by both scores, the base first.

    Args:
        contents: The run.
        plane: The two scores.

    Returns:
        Means and standard errors are those of `report.json`.
    """
    rows = {(row.scorer, row.model): row for row in summary.results(contents)}
    reach = two_sided_95(max(int(contents.report.get("prompts", 0)) - 1, 1))
    found = []
    for model in (contents.base, *contents.challengers):
        x, y = rows.get((plane.fidelity, model)), rows.get((plane.prompt, model))
        if x is not None and y is not None and np.isfinite((x.mean, y.mean)).all():
            errors = np.nan_to_num([x.stderr, y.stderr]) * reach
            found.append(Position(model, x.mean, y.mean, *errors.tolist()))
    return found


def moves(found: Sequence[Position]) -> list[Move]:
    """Return the moves of models from the first one.

    Args:
        found: The models, the base first.

    Returns:
        One move per model, the base's of length 0 first; empty for fewer than two models.
    """
    if len(found) < 2:
        return []
    base = found[0]
    front = _front(found)
    return [
        Move(each.model, each.fidelity - base.fidelity, each.prompt - base.prompt, i in front)
        for i, each in enumerate(found)
    ]


def panel(found: Sequence[Position], plane: Plane, colours: Mapping[str, str]) -> Panel:
    """Draw models as crosses on the plane, with their names and the Pareto front of their means.

    Args:
        found: The models.
        plane: The axes.
        colours: Role of each model's colour.

    Returns:
        The figure; a sentence in its place where there are fewer than two models.
    """
    name, title = f"{PREFIX}{plane.fidelity}", f"By {plane.fidelity} and {plane.prompt}"
    if not found:
        why = (
            f"No model was measured by both {plane.fidelity} and {plane.prompt};"
            " name both in evaluate.scorers."
        )
        return Panel(name, title, why, alt=why)
    front = [found[i].model for i in _front(found)]
    places = "; ".join(f"{each.model} at {_written(each)}" for each in found)
    if len(found) == 1:
        why = f"Only one model was measured by both scores: {places}. A comparison needs two."
        return Panel(name, title, why, alt=why)
    return Panel(
        name,
        title,
        "Right is closer to the subject, up is closer to the prompt: upper right is better on both."
        " Bars: 95% interval of each mean, clustered by prompt. Dashed: the Pareto front of means;"
        " filled points lie on it; of each hollow one, another model is at least as good on both"
        " scores. Models share prompts and seeds, so that their difference is usually surer than"
        " their bars say.",
        lambda axes, palette: _draw(axes, found, plane, colours, palette),
        f"Means of {plane.fidelity} and {plane.prompt}: {places}."
        f" On the Pareto front: {', '.join(front)}.",
    )


def _draw(
    axes: Axes,
    found: Sequence[Position],
    plane: Plane,
    colours: Mapping[str, str],
    palette: Palette,
) -> None:
    axes.figure.set_size_inches(5.6, 4.2)
    means = [(each.fidelity, each.prompt) for each in found]
    bars = [(each.fidelity_error, each.prompt_error) for each in found]
    front = _front(found)
    for i, ((x, y), (across, up)) in enumerate(zip(means, bars, strict=True)):
        colour = palette[colours[found[i].model]]
        axes.plot([x - across, x + across], [y, y], color=colour, linewidth=1.4, alpha=0.75)
        axes.plot([x, x], [y - up, y + up], color=colour, linewidth=1.4, alpha=0.75)
        inside = colour if i in front else "none"
        axes.plot(
            [x], [y], "o", color=colour, markersize=7, markerfacecolor=inside, label=found[i].model
        )
    axes.margins(0.16)
    axes.autoscale_view()
    (left, _), (bottom, _) = axes.get_xlim(), axes.get_ylim()
    steps = np.array([means[i] for i in front])
    axes.plot(
        [left, *steps[:, 0], steps[-1, 0]],
        [steps[0, 1], *steps[:, 1], bottom],
        color=palette["muted"],
        linewidth=1.0,
        dashes=(4, 3),
        drawstyle="steps-pre",
        zorder=1,
    )
    axes.set_xlim(left=left)
    axes.set_ylim(bottom=bottom)
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.yaxis.set_major_locator(MaxNLocator(6))
    axes.set_xlabel(f"{plane.fidelity} (closer to the subject →)")
    axes.set_ylabel(f"{plane.prompt} (closer to the prompt →)")
    legend_above(axes, columns=3)


def _front(found: Sequence[Position]) -> list[int]:
    return pareto([(each.fidelity, each.prompt) for each in found])


def _written(each: Position) -> str:
    """Both means with their intervals: `(0.700 ± 0.012, 0.250 ± 0.008)`."""
    x = f"{each.fidelity:.3f} ± {each.fidelity_error:.3f}"
    return f"({x}, {each.prompt:.3f} ± {each.prompt_error:.3f})"
