"""Planes of a run: closeness to the subject against closeness to the prompt, for page and file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from tastemaker.core.errors import TastemakerError
from tastemaker.reporting.figures import model_colours
from tastemaker.reporting.plane import models, pairs
from tastemaker.reporting.plane.axes import Plane, planes_of
from tastemaker.reporting.plane.clouds import clouds
from tastemaker.reporting.plane.grid import Grid, grid
from tastemaker.reporting.plane.models import PREFIX, Move
from tastemaker.reporting.run_contents import Contents, read
from tastemaker.reporting.svg import Panel
from tastemaker.storage.run_dir import RunDir


@dataclass(frozen=True)
class ModelPlane:
    """The models' places on one plane, and their moves from the base."""

    panel: Panel
    moves: list[Move]


@dataclass(frozen=True)
class PlaneReport:
    """The page's figures of a personalised model.

    Args:
        models: The models on the plane of the pair rule, then on those of other scorers.
        pairs: Name of each set of pairs, with its figures.
        grid: The subject's photographs beside the models' images.
    """

    models: list[ModelPlane]
    pairs: dict[str, list[Panel]]
    grid: Grid | None


def plane_report(contents: Contents, rows: int) -> PlaneReport | None:
    """Draw the planes of a run for the page.

    Args:
        contents: The run.
        rows: Prompts in the grid of images.

    Returns:
        None where the run's configuration does not name both scores.

    Raises:
        TastemakerError: A file of the run is torn.
    """
    planes = planes_of(contents)
    if not planes:
        return None
    return PlaneReport(
        models=[_model_plane(contents, plane) for plane in planes],
        pairs={
            held.name: pairs.panels(held, planes[0]) for held in clouds(contents.run, planes[0])
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
        drawn += pairs.panels(held, planes[0])
    figures = {each.name.removeprefix(PREFIX): each.figure for each in drawn}
    return {name: figure for name, figure in figures.items() if figure is not None}


def _model_plane(contents: Contents, plane: Plane) -> ModelPlane:
    found = models.positions(contents, plane)
    from_base = bool(found) and found[0].model == contents.base
    return ModelPlane(_models(contents, plane), models.moves(found) if from_base else [])


def _models(contents: Contents, plane: Plane) -> Panel:
    colours = model_colours(contents.base, contents.challengers)
    return models.panel(models.positions(contents, plane), plane, colours)
