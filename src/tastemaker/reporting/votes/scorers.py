"""Scorers against people: how often each prefers the image that was voted for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from tastemaker.config.datasets import HUMAN, TIE
from tastemaker.datasets.verdicts import Verdict
from tastemaker.evaluation.human_columns import COMMAND
from tastemaker.metrics.two_way import mean_of_votes, share_of_votes
from tastemaker.reporting.votes.models import Numbers, known, share
from tastemaker.storage.artifact import DONE_FILE
from tastemaker.storage.files import read_record
from tastemaker.storage.pool import Pool

Scores = dict[str, dict[str, float]]
"""Scorer to candidate id to score."""


def scores_of(pools: Iterable[Pool], verdicts: Sequence[Verdict]) -> Scores:
    """Read the voted images' scores by every scorer of some pools; those of people are left out.

    Args:
        pools: Scored pools, or pools without scores.
        verdicts: Of people.

    Raises:
        TastemakerError: A file of a pool is missing or torn.
    """
    wanted = {side for each in verdicts for side in (each.first, each.second)}
    found: Scores = {}
    for pool in pools:
        names = [name for name in pool.scorers() if not _of_people(pool.folder / "scores" / name)]
        for table in pool.scored_shards() if names else ():
            for row in table.select(["candidate_id", *names]).to_pylist():
                if row["candidate_id"] in wanted:
                    for name in names:
                        found.setdefault(name, {})[row["candidate_id"]] = row[name]
    return found


def scorers(verdicts: Sequence[Verdict], scores: Mapping[str, Mapping[str, float]]) -> Numbers:
    """Compare each scorer with the decided verdicts on images that it scored.

    Args:
        verdicts: On one question.
        scores: Scorer to candidate id to score.

    Returns:
        `scorers`, the best first: the share of decided verdicts in which the scorer prefers the
        preferred image, equal scores half, with a 95% interval clustered by prompt and voter, and
        `behind`, by how much it is behind the first on the same verdicts; `best`: the first, if it
        leads every other by more than chance.
    """
    decided = [each for each in verdicts if each.preferred is not None]
    points = {name: _points(decided, of) for name, of in scores.items()}
    points = {name: found for name, found in points.items() if found}
    table = {
        name: share(share_of_votes(list(found.values()), *_clusters(decided, found)), len(found))
        for name, found in points.items()
    }
    ranked = sorted(table, key=lambda name: -table[name]["value"])
    behind = {name: _behind(decided, points[ranked[0]], points[name]) for name in ranked[1:]}
    clear = all(each is not None and (each["low"] or 0) > 0 for each in behind.values())
    return {
        "scorers": {name: {**table[name], "behind": behind.get(name)} for name in ranked},
        "best": ranked[0] if ranked and clear and table[ranked[0]]["low"] > 0.5 else None,
    }


def _points(decided: Sequence[Verdict], scores: Mapping[str, float]) -> dict[int, float]:
    """Return 1, 0.5 or 0 by the number of each verdict whose images are both scored."""
    found = {}
    for number, each in enumerate(decided):
        first, second = scores.get(each.first), scores.get(each.second)
        if first is not None and second is not None:
            found[number] = 0.5 if first == second else float((first > second) == (each.score == 1))
    return found


def _behind(
    decided: Sequence[Verdict], best: Mapping[int, float], other: Mapping[int, float]
) -> Numbers | None:
    """Lead of the best scorer on the verdicts that both scored."""
    both = [number for number in best if number in other]
    if not both:
        return None
    found = mean_of_votes([best[i] - other[i] for i in both], *_clusters(decided, both))
    return {"value": found.mean, "low": known(found.low), "high": known(found.high)}


def _clusters(decided: Sequence[Verdict], kept: Iterable[int]) -> tuple[list[str], list[str]]:
    of = [decided[number] for number in kept]
    return [each.prompt for each in of], [each.voter for each in of]


def _of_people(folder: Path) -> bool:
    """True for a column that people made, by votes or by the verdicts of an import."""
    return folder.name in {HUMAN, TIE} or read_record(folder / DONE_FILE).get("command") == COMMAND
