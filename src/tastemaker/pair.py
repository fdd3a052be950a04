"""ROOM 3: scores to pairs. A rule sees one prompt's candidates and picks (chosen, rejected)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from tastemaker.errors import TastemakerError, nearest
from tastemaker.files import config_key
from tastemaker.records import PairSet, Pool, Stage, finished_key
from tastemaker.registry import RULES
from tastemaker.sections import PairConfig

ScorerName = Annotated[str, Field(description="Column of the pool's scores.")]


@dataclass
class Group:
    """One prompt's candidates, in pool order.

    Args:
        prompt_id: The prompt's id.
        prompt: Its text.
        candidate_ids: Ids, one a candidate.
        scores: Scorer name to scores, one a candidate.
    """

    prompt_id: str
    prompt: str
    candidate_ids: list[str] = field(default_factory=list)
    scores: dict[str, list[float]] = field(default_factory=dict)

    def scored_by(self, scorer: str) -> list[float]:
        """Return one scorer's scores.

        Raises:
            TastemakerError: The pool was not scored by it.
        """
        if scorer not in self.scores:
            raise TastemakerError(
                f"the pool has no scores by {scorer!r}; run `score` with it."
                f" {nearest(scorer, self.scores)}"
            )
        return self.scores[scorer]


@dataclass(frozen=True)
class Pick:
    """A pair within a group: indices of the chosen and the rejected, and by how much it won."""

    chosen: int
    rejected: int
    margin: float


@RULES.register("best_worst")
def best_worst(group: Group, *, scorer: ScorerName) -> Iterator[Pick]:
    """The best-scored candidate against the worst-scored, one pair a prompt.

    Ties (all scores equal) give no pair; among equals the first in pool order is taken.

    Args:
        group: One prompt's candidates.
        scorer: Column of the pool's scores.

    Yields:
        At most one pick.
    """
    yield from _extremes(group.scored_by(scorer))


@RULES.register("threshold")
def threshold(
    group: Group,
    *,
    scorer: ScorerName,
    gap: Annotated[float, Field(ge=0, description="Keep pairs whose score gap exceeds this.")],
    max_pairs: Annotated[int, Field(ge=1, description="At most so many a prompt.")] = 4,
) -> Iterator[Pick]:
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
    yield from sorted(picks, key=lambda pick: (-pick.margin, pick.chosen, pick.rejected))[
        :max_pairs
    ]


@RULES.register("weighted")
def weighted(
    group: Group,
    *,
    weights: Annotated[dict[str, float], Field(min_length=1, description="Scorer name to weight.")],
) -> Iterator[Pick]:
    """Best against worst by a weighted sum of scores: `sum_k weight_k * score_k`.

    Scores enter in their own units; divide a weight by the scorer's spread to balance two scales.

    Args:
        group: One prompt's candidates.
        weights: Scorer name to weight; a negative weight reverses a scorer.

    Yields:
        At most one pick.
    """
    columns = [(weight, group.scored_by(scorer)) for scorer, weight in weights.items()]
    yield from _extremes(
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
    import pyarrow as pa

    source = Pool(pool)
    inputs = {"pool": finished_key(pool), "scores": _score_keys(source)}
    stage = Stage(output, "pair", {**config.model_dump(mode="json"), "inputs": inputs})
    if stage.begin().finished:
        return output
    rule = RULES.bind(config.rule.name, config.rule.options)
    groups = _groups(source)
    rows = [
        {
            "pair_id": config_key(
                group.candidate_ids[pick.chosen], group.candidate_ids[pick.rejected]
            ),
            "prompt_id": group.prompt_id,
            "prompt": group.prompt,
            "chosen_id": group.candidate_ids[pick.chosen],
            "rejected_id": group.candidate_ids[pick.rejected],
            "rule": config.rule.name,
            "margin": pick.margin,
        }
        for group in groups
        for pick in rule(group)
    ]
    if not rows:
        raise TastemakerError(
            f"rule {config.rule.name!r} left no pair of {len(groups)} prompts in {pool}: every"
            " candidate ties, or the filter is too strict. Generate more candidates a prompt, or"
            " loosen the rule."
        )
    PairSet(output).write(pa.Table.from_pylist(rows), [source])
    stage.finish(pairs=len(rows), prompts=len(groups))
    print(f"paired {len(rows)} of {len(groups)} prompts' candidates by {config.rule.name}")
    return output


def _extremes(scores: list[float]) -> Iterator[Pick]:
    best = max(range(len(scores)), key=lambda i: (scores[i], -i))
    worst = min(range(len(scores)), key=lambda i: (scores[i], i))
    if scores[best] > scores[worst]:
        yield Pick(best, worst, scores[best] - scores[worst])


def _groups(pool: Pool) -> list[Group]:
    table = pool.scores()
    scorers = pool.scorers()
    groups: dict[str, Group] = {}
    columns: dict[str, Any] = table.to_pydict()
    for i, prompt_id in enumerate(columns["prompt_id"]):
        if prompt_id not in groups:
            lists: dict[str, list[float]] = defaultdict(list)
            groups[prompt_id] = Group(prompt_id, columns["prompt"][i], scores=lists)
        groups[prompt_id].candidate_ids.append(columns["candidate_id"][i])
        for scorer in scorers:
            groups[prompt_id].scores[scorer].append(columns[scorer][i])
    return list(groups.values())


def _score_keys(pool: Pool) -> dict[str, str]:
    return {name: finished_key(pool.folder / "scores" / name) for name in pool.scorers()}
