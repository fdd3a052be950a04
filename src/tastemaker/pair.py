"""ROOM 3: scores to pairs. A rule sees one prompt's candidates and picks (chosen, rejected)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from pydantic import Field

from tastemaker.errors import TastemakerError
from tastemaker.groups import (
    Dropped,
    Group,
    Pick,
    extremes,
    finish_pairs,
    groups,
    score_keys,
    sorted_out,
)
from tastemaker.records import Pool, Stage, finished_key
from tastemaker.registry import RULES
from tastemaker.sections import PairConfig

ScorerName = Annotated[str, Field(description="Column of the pool's scores.")]


@RULES.register("best_worst")
def best_worst(group: Group, *, scorer: ScorerName) -> Iterator[Pick | Dropped]:
    """The best-scored candidate against the worst-scored, one pair a prompt.

    Ties (all scores equal) give no pair; among equals the first in pool order is taken.

    Args:
        group: One prompt's candidates.
        scorer: Column of the pool's scores.

    Yields:
        At most one pick.
    """
    yield from extremes(group.scored_by(scorer))


@RULES.register("threshold")
def threshold(
    group: Group,
    *,
    scorer: ScorerName,
    gap: Annotated[float, Field(ge=0, description="Keep pairs whose score gap exceeds this.")],
    max_pairs: Annotated[int, Field(ge=1, description="At most so many a prompt.")] = 4,
) -> Iterator[Pick | Dropped]:
    """Every pair of a prompt whose score gap exceeds a value, the widest first.

    Args:
        group: One prompt's candidates.
        scorer: Column of the pool's scores.
        gap: Smallest gap, exclusive, in the scorer's units.
        max_pairs: Cap a prompt.

    Yields:
        Picks in order of falling gap.
    """
    scores = group.scored_by(scorer)
    picks = [
        Pick(c, r, scores[c] - scores[r])
        for c in range(len(scores))
        for r in range(len(scores))
        if scores[c] - scores[r] > gap
    ]
    if not picks:
        yield Dropped(f"no gap exceeds {gap}")
    yield from sorted(picks, key=lambda pick: (-pick.margin, pick.chosen, pick.rejected))[
        :max_pairs
    ]


@RULES.register("weighted")
def weighted(
    group: Group,
    *,
    weights: Annotated[dict[str, float], Field(min_length=1, description="Scorer name to weight.")],
) -> Iterator[Pick | Dropped]:
    """Best against worst by a weighted sum of scores: `sum_k weight_k * score_k`.

    Scores enter in their own units; divide a weight by the scorer's spread to balance two scales.

    Args:
        group: One prompt's candidates.
        weights: Scorer name to weight; a negative weight reverses a scorer.

    Yields:
        At most one pick.
    """
    columns = [(weight, group.scored_by(scorer)) for scorer, weight in weights.items()]
    yield from extremes(
        [
            sum(weight * column[i] for weight, column in columns)
            for i in range(len(group.candidate_ids))
        ]
    )


def pair(config: PairConfig, pool: Path, output: Path) -> Path:
    """Pair a scored pool's candidates.

    Args:
        config: The rule.
        pool: A pool that `score` has seen.
        output: Folder of the pairs.

    Returns:
        `output`, which then holds `pairs.parquet` and `pools.json`.

    Raises:
        TastemakerError: No score by the rule's scorer, or no pair left after the rule.
    """
    source = Pool(pool)
    inputs = {"pool": finished_key(pool), "scores": score_keys(source)}
    stage = Stage(output, "pair", {**config.model_dump(mode="json"), "inputs": inputs})
    if stage.begin().finished:
        return output
    rule = RULES.bind(config.rule.name, config.rule.options)
    found = groups(source)
    picks = ((group, group, pick) for group in found for pick in rule(group))
    rows, dropped = sorted_out(picks, config.rule.name)
    if not rows:
        raise TastemakerError(
            f"rule {config.rule.name!r} left no pair of {len(found)} prompts in {pool}: every"
            " candidate ties, or the filter is too strict. Generate more candidates a prompt, or"
            " loosen the rule."
        )
    return finish_pairs(stage, rows, [source], dropped, f"{len(found)} prompts' candidates")
