"""The section on personalised models: closeness to the subject against closeness to the prompt.

`figures(run)` gives its figures for any such run, ready to save; the page shows the same ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup
from matplotlib.figure import Figure

from tastemaker.core.errors import TastemakerError
from tastemaker.reporting.figures import model_colours
from tastemaker.reporting.plane import models, pairs
from tastemaker.reporting.plane.axes import Plane, Window, planes_of
from tastemaker.reporting.plane.clouds import clouds
from tastemaker.reporting.plane.grid import Grid, grid
from tastemaker.reporting.plane.models import Move
from tastemaker.reporting.plane.section import Drawing
from tastemaker.reporting.run_contents import Contents, read
from tastemaker.storage.run_dir import RunDir

__all__ = ["Plane", "Section", "Window", "figures", "planes_of", "section"]


@dataclass(frozen=True)
class Panel:
    """A figure of the page; without an SVG element its meaning says why there is none."""

    title: str
    alt: str
    meaning: str
    svg: Markup | None


@dataclass(frozen=True)
class Standing:
    """Where the models lie on one plane, and where each went from the base."""

    panel: Panel
    moves: list[Move]


@dataclass(frozen=True)
class Section:
    """What the page shows of a personalised model.

    Args:
        models: The models on the plane of the pair rule, then on those of other scorers.
        pairs: Name of each set of pairs, with its figures.
        grid: The subject's photographs beside the models' images.
    """

    models: list[Standing]
    pairs: dict[str, list[Panel]]
    grid: Grid | None


def section(contents: Contents, rows: int) -> Section | None:
    """Draw the section of a run.

    Args:
        contents: The run.
        rows: How many prompts the grid of images shows.

    Returns:
        None where the run's configuration does not name both scores.

    Raises:
        TastemakerError: A file of the run is torn.
    """
    planes = planes_of(contents)
    if not planes:
        return None
    return Section(
        models=[_standing(contents, plane) for plane in planes],
        pairs={
            held.name: [_panel(each) for each in pairs.drawings(held, planes[0])]
            for held in clouds(contents.run, planes[0])
        },
        grid=grid(contents, planes[0], rows),
    )


def figures(run: Path | str) -> dict[str, Figure]:
    """Draw the planes of a finished run.

    Args:
        run: The run's folder, for instance `runs/dreambooth_dpo-nano`.

    Returns:
        Name to matplotlib figure: a plane by its first score, as in `image_similarity`, and of each
        set of pairs its `cloud`, `weighted` and `angle`, as in `round_1-cloud`; those for which the
        run has no data are missing. Save one with `figure.savefig("plane.pdf")`.

    Raises:
        TastemakerError: The run is not finished, or does not name both scores.

    Example:
        >>> from tastemaker.reporting.plane import figures
        >>> figures("runs/dreambooth_dpo-nano")["round_1-cloud"].savefig("cloud.png")
        ... # doctest: +SKIP
    """
    contents = read(RunDir(Path(run)))
    planes = planes_of(contents)
    if not planes:
        raise TastemakerError(
            f"{run} has no plane of two scores: name image_similarity and text_similarity in"
            " evaluate.scorers, or pair by rule `angle`."
        )
    drawn = [_models(contents, plane) for plane in planes]
    for held in clouds(contents.run, planes[0]):
        drawn += pairs.drawings(held, planes[0])
    return {each.name: each.figure for each in drawn if each.figure is not None}


def _standing(contents: Contents, plane: Plane) -> Standing:
    found = models.positions(contents, plane)
    from_base = bool(found) and found[0].model == contents.base
    return Standing(_panel(_models(contents, plane)), models.moves(found) if from_base else [])


def _models(contents: Contents, plane: Plane) -> Drawing:
    colours = model_colours(contents.base, contents.challengers)
    return models.drawing(models.positions(contents, plane), plane, colours)


def _panel(drawing: Drawing) -> Panel:
    return Panel(drawing.title, drawing.alt, drawing.meaning, drawing.svg)
