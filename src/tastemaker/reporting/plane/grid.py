"""Grid of a subject's photographs and images: one row per prompt, one column per model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from PIL import Image

from tastemaker.core.errors import TastemakerError
from tastemaker.reporting.images import THUMBNAIL, Thumbnail, thumbnail, thumbnails
from tastemaker.reporting.plane.axes import Plane
from tastemaker.reporting.run_contents import Contents, Row
from tastemaker.reporting.samples import quantiles
from tastemaker.storage.pool import Pool


@dataclass(frozen=True)
class GridRow:
    """One prompt.

    Args:
        prompt: Its text.
        seed: The seed of all models.
        photograph: One of the subject's; they take turns. None where they are gone.
        drawn: Model to image; None where it is gone.
    """

    prompt: str
    seed: int
    photograph: Thumbnail | None
    drawn: dict[str, Thumbnail | None]


@dataclass(frozen=True)
class Grid:
    """One subject's images.

    Args:
        subject: Its phrase in the prompts, or "the subject" where the run does not say.
        models: The columns after the photograph.
        rows: One per prompt.
    """

    subject: str
    models: list[str]
    rows: list[GridRow]


def grid(contents: Contents, plane: Plane, count: int) -> Grid | None:
    """Choose prompts evenly over their order, and show the first image of each by every model.

    Args:
        contents: The run.
        plane: The run's two scores, whose options name the photographs and the subject.
        count: Number of prompts.

    Returns:
        None where fewer than two models kept their images' scores.
    """
    models = [name for name in (contents.base, *contents.challengers) if name in contents.scores]
    if len(models) < 2:
        return None
    first: dict[str, tuple[str, int]] = {}
    for key in contents.scores[models[0]]:
        if all(key in contents.scores[model] for model in models):
            first.setdefault(key[0], key)
    keys = [list(first.values())[place] for place in quantiles(len(first), count)]
    images = {model: _images(contents, model, keys) for model in models}
    photographs = _photographs(_options(contents, plane.fidelity).get("images")) or [None]
    ours: Mapping[tuple[str, int], Row] = contents.scores[models[0]]
    return Grid(
        subject=str(_options(contents, plane.prompt).get("subject", "the subject")),
        models=models,
        rows=[
            GridRow(
                prompt=str(ours[key]["prompt"]),
                seed=key[1],
                photograph=photographs[i % len(photographs)],
                drawn={model: images[model].get(key) for model in models},
            )
            for i, key in enumerate(keys)
        ],
    )


def _images(
    contents: Contents, model: str, keys: list[tuple[str, int]]
) -> dict[tuple[str, int], Thumbnail]:
    ids = {key: str(contents.scores[model][key]["candidate_id"]) for key in keys}
    found = thumbnails([Pool(contents.run.evaluation / model)], set(ids.values()))
    return {key: found[name] for key, name in ids.items() if name in found}


def _options(contents: Contents, column: str) -> Mapping[str, Any]:
    """Return the options of a column's scorer; empty where the configuration does not name it."""
    if contents.config is None:
        return {}
    sections = (contents.config.evaluate, getattr(contents.config, "score", None))
    scorers = (each for section in sections if section for each in section.scorers)
    return next((each.options for each in scorers if each.column == column), {})


def _photographs(folder: str | None) -> list[Thumbnail | None]:
    """Return the photographs, where the folder still exists."""
    if folder is None:
        return []
    # Here, since images as tensors need torch, and a page without a plane does not.
    from tastemaker.datasets.subjects import photographs
    from tastemaker.storage.images import encode_png

    try:
        pictures = photographs(folder)
    except TastemakerError:
        return []
    for picture in pictures:
        picture.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
    return [thumbnail(encode_png(picture)) for picture in pictures]
