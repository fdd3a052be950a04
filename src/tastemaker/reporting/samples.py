"""Images of the page: before/after strips, and pairs of the training."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from tastemaker.config.runs import STAGES
from tastemaker.core.errors import TastemakerError
from tastemaker.reporting.images import LARGE, THUMBNAIL, Thumbnail, thumbnails
from tastemaker.reporting.run_contents import Contents, Row
from tastemaker.storage.pairs import PairSet
from tastemaker.storage.pool import Pool
from tastemaker.storage.run_dir import RunDir


@dataclass(frozen=True)
class Drawn:
    """One model's image of a strip.

    Args:
        model: The model that drew it.
        image: None where the file is missing.
        large: The same, larger where the file is.
        scores: Score under each scorer that scored it.
        differences: Score minus the base's score; empty for the base itself.
    """

    model: str
    image: Thumbnail | None
    large: Thumbnail | None
    scores: dict[str, float]
    differences: dict[str, float]


@dataclass(frozen=True)
class Strip:
    """Images of all models for one prompt and seed, the base's first.

    Args:
        prompt: The prompt.
        seed: The seed of all models.
        rank: Rank among all prompts by score difference; 1 is the best.
        drawn: The images.
    """

    prompt: str
    seed: int
    rank: int
    drawn: list[Drawn]


@dataclass(frozen=True)
class Shown:
    """A pair that the policy was trained on."""

    prompt: str
    margin: float
    chosen: Thumbnail | None
    rejected: Thumbnail | None


def quantiles(total: int, count: int) -> list[int]:
    """Return evenly spaced places in a sorted list, first and last included.

    Args:
        total: Length of the list.
        count: Number of places.

    Returns:
        At most `count` increasing places.

    Example:
        >>> quantiles(101, 5)
        [0, 25, 50, 75, 100]
    """
    if count >= total:
        return list(range(total))
    return [round(i * (total - 1) / max(count - 1, 1)) for i in range(count)]


def strips(contents: Contents, count: int) -> tuple[list[Strip], int, int, int]:
    """Choose evenly spaced quantiles of the judge's score difference, where there is one.

    Of a score of 0 or 1 they are images that got better and images that got worse, in their true
    proportion.

    Args:
        contents: The run.
        count: Number of strips.

    Returns:
        The strips, best difference first, the number of images they were chosen from, and the
        number of all images; the number of images that the judge scores above the base's.
    """
    if contents.subject is None:
        return [], 0, 0, 0
    judge = contents.ranking_scorer
    shared = contents.shared_rows(contents.subject)
    changed = [rows for rows in shared if _difference(rows[0], rows[1], judge)]
    ranked = sorted(changed or shared, key=lambda rows: -_difference(rows[0], rows[1], judge))
    gained = sum(_difference(ours, theirs, judge) > 0 for ours, theirs in shared)
    chosen = [(place, *ranked[place]) for place in quantiles(len(ranked), count)]
    rows_of = {
        place: [(contents.base, ours), *_others(contents, ours)] for place, ours, _ in chosen
    }
    images, large = (_images(contents, rows_of.values(), limit) for limit in (THUMBNAIL, LARGE))
    found = [
        Strip(
            prompt=str(ours["prompt"]),
            seed=int(ours["seed"]),
            rank=place + 1,
            drawn=[
                _drawn(contents, model, row, ours, images, large) for model, row in rows_of[place]
            ],
        )
        for place, ours, _ in chosen
    ]
    return found, len(ranked), len(shared), gained


def best_and_worst_pairs(contents: Contents, count: int) -> tuple[list[Shown], list[Shown], int]:
    """Choose the pairs with the largest and the smallest margin.

    Args:
        contents: The run.
        count: Number of each; fewer where the run has too few pairs for two separate groups.

    Returns:
        The pairs with the largest margin, falling; those with the smallest, rising; and the number
        of all pairs.

    Raises:
        TastemakerError: `pairs.parquet` is torn.
    """
    sets = pair_sets(contents.run)
    if not sets:
        return [], [], 0
    pairs = sets[-1]  # of several, those that made the final policy
    table: list[dict[str, Any]] = pairs.table().to_pylist()
    measured = [row for row in table if row["margin"] is not None and math.isfinite(row["margin"])]
    ranked = sorted(measured, key=lambda row: (-row["margin"], str(row["pair_id"])))
    best = ranked[: min(count, (len(ranked) + 1) // 2)]
    worst = ranked[::-1][: min(count, len(ranked) // 2)]
    sides = ("chosen_id", "rejected_id")
    images = thumbnails(_pools(pairs), {row[side] for row in (*best, *worst) for side in sides})
    return _shown(best, images), _shown(worst, images), len(table)


def pair_sets(run: RunDir) -> list[PairSet]:
    """Return every set of pairs of a run, in the order in which they were trained on.

    Args:
        run: The run.

    Returns:
        The pairs of a single training, or those of all stages or rounds that have any.
    """
    folders = [run.pairs, *sorted(run.pairs.glob("*"), key=_turn)]
    sets = [PairSet(folder) for folder in folders]
    return [pairs for pairs in sets if pairs.file.is_file()]


def _turn(folder: Path) -> tuple[int, int, str]:
    """Stages as the curriculum has them; the tenth round after the ninth."""
    stage = STAGES.index(folder.name) if folder.name in STAGES else len(STAGES)
    return stage, len(folder.name), folder.name


def _pools(pairs: PairSet) -> list[Pool]:
    """Return the pairs' pools; none where an old run does not name them."""
    try:
        return pairs.pools()
    except TastemakerError:
        return []


def _shown(rows: Sequence[Row], images: dict[str, Thumbnail]) -> list[Shown]:
    return [
        Shown(
            prompt=str(row["prompt"]),
            margin=float(row["margin"]),
            chosen=images.get(row["chosen_id"]),
            rejected=images.get(row["rejected_id"]),
        )
        for row in rows
    ]


def _others(contents: Contents, ours: Row) -> list[tuple[str, Row]]:
    key = (str(ours["prompt_id"]), int(ours["seed"]))
    held = [(model, contents.scores.get(model, {}).get(key)) for model in contents.challengers]
    return [(model, row) for model, row in held if row is not None]


Images = dict[str, dict[str, Thumbnail]]
"""By model and candidate."""


def _images(contents: Contents, drawn: Iterable[list[tuple[str, Row]]], limit: int) -> Images:
    wanted: dict[str, set[str]] = {name: set() for name in (contents.base, *contents.challengers)}
    for name, row in chain.from_iterable(drawn):
        wanted[name].add(row["candidate_id"])
    return {
        name: thumbnails([Pool(contents.run.evaluation / name)], ids, limit)
        for name, ids in wanted.items()
    }


def _drawn(
    contents: Contents, model: str, row: Row, ours: Row, images: Images, large: Images
) -> Drawn:
    scores = {name: row[name] for name in contents.scorers if _is_number(row.get(name))}
    compared = [name for name in scores if row is not ours and _is_number(ours.get(name))]
    return Drawn(
        model=model,
        image=images[model].get(row["candidate_id"]),
        large=large[model].get(row["candidate_id"]),
        scores=scores,
        differences={name: scores[name] - ours[name] for name in compared},
    )


def _difference(ours: Row, theirs: Row, scorer: str | None) -> float:
    if scorer is None or not (_is_number(ours.get(scorer)) and _is_number(theirs.get(scorer))):
        return 0.0
    return float(theirs[scorer]) - float(ours[scorer])


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
