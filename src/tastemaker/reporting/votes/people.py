"""Voters: agreement with one another, and consistency and side bias of each."""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from tastemaker.datasets.verdicts import Verdict, counting
from tastemaker.metrics.agreement import Level, krippendorff_alpha
from tastemaker.metrics.two_way import share_of_votes
from tastemaker.reporting.votes.models import Numbers, known, share
from tastemaker.storage.votes import RATINGS, SKIP, Vote

ORDER = ("first", "neither", "second")
BAD = "both bad"


def voters(
    votes: Sequence[Vote], gold: Mapping[frozenset[str], str] | None = None
) -> dict[str, Numbers]:
    """Describe each voter.

    Args:
        votes: All votes on one question, skips and repeats among them, in order of time.
        gold: The better image of each gold item, by the ids of both.

    Returns:
        By name, the busiest first: numbers of votes and skips, median seconds; `consistency`, the
        share of repeated tasks that were answered alike; `left`, the share of decided pairs in
        which the left image was preferred; `gold`, the share of gold items answered right.
    """
    by_voter: dict[str, list[Vote]] = defaultdict(list)
    for vote in votes:
        by_voter[vote.voter].append(vote)
    return {
        name: {
            "votes": len(counting(cast)),
            "skipped": sum(vote.answer == SKIP for vote in cast),
            "seconds": statistics.median(vote.seconds for vote in cast),
            "consistency": _consistency(cast),
            "left": _left(cast),
            "gold": _gold(cast, gold or {}),
        }
        for name, cast in sorted(by_voter.items(), key=lambda each: -len(each[1]))
    }


def agreement(votes: Sequence[Vote], verdicts: Sequence[Verdict]) -> dict[str, Numbers]:
    """Return Krippendorff's alpha between voters, with intervals clustered by prompt.

    Of comparisons a unit is a pair of images, and its values are the first, neither, the second, or
    both bad, which is neither for the ordinal alpha. Of ratings a unit is an image.

    Args:
        votes: Votes that count, on one question.
        verdicts: Those of these votes.

    Returns:
        `comparisons` and `ratings`, as far as there are any: `nominal` and `ordinal`.
    """
    rated = {vote.vote_id for vote in votes if vote.kind == "rating"}
    pairs: dict[tuple[str, ...], dict[str, str]] = defaultdict(dict)
    for each in verdicts:
        if each.where not in rated:
            key = (each.prompt, *sorted((each.first, each.second)))
            pairs[key].setdefault(each.voter, _value(each))
    images: dict[tuple[str, ...], dict[str, Any]] = defaultdict(dict)
    for vote in votes:
        if vote.kind == "rating":
            images[vote.prompt, vote.shown[0]].setdefault(vote.voter, vote.answer)
    found = {}
    if pairs:
        ordered = {key: [_neither(v) for v in of.values()] for key, of in pairs.items()}
        named = {key: list(of.values()) for key, of in pairs.items()}
        found["comparisons"] = {
            "nominal": _alpha(named, (*ORDER, BAD), "nominal"),
            "ordinal": _alpha(ordered, ORDER, "ordinal"),
        }
    if images:
        stars = {key: list(of.values()) for key, of in images.items()}
        found["ratings"] = {
            level: _alpha(stars, RATINGS, level) for level in ("nominal", "ordinal")
        }
    return found


def _value(verdict: Verdict) -> str:
    if verdict.bad:
        return BAD
    if verdict.preferred is None:
        return "neither"
    return ORDER[0 if verdict.preferred == min(verdict.first, verdict.second) else 2]


def _neither(value: str) -> str:
    return "neither" if value == BAD else value


def _alpha(
    units: dict[tuple[str, ...], list[Any]], values: Sequence[Hashable], level: Level
) -> Numbers:
    prompts = [key[0] for key in units]
    found = krippendorff_alpha(list(units.values()), values, level, prompts)
    ends = {name: known(getattr(found, name)) for name in ("value", "low", "high")}
    return {**ends, "units": found.units, "values": found.values}


def _consistency(votes: Sequence[Vote]) -> Numbers | None:
    """Share of repeats that were answered as the task was at first."""
    first: dict[str, Vote] = {}
    same, prompts = [], []
    for vote in votes:
        if vote.answer == SKIP:
            continue
        if vote.chosen_by == "repeat" and vote.task_id in first:
            same.append(float(_meant(vote) == _meant(first[vote.task_id])))
            prompts.append(vote.prompt)
        first.setdefault(vote.task_id, vote)
    if not same:
        return None
    return share(share_of_votes(same, prompts, [""] * len(same)), len(same))


def _meant(vote: Vote) -> Hashable:
    """Return an answer that does not depend on the order of the images."""
    if isinstance(vote.answer, dict):
        return vote.shown[vote.answer["best"]], vote.shown[vote.answer["worst"]]
    if vote.answer in {"left", "right"}:
        return vote.shown[vote.answer == "right"]
    return vote.answer


def _left(votes: Sequence[Vote]) -> Numbers | None:
    decided = [vote for vote in votes if vote.answer in ("left", "right")]
    if not decided:
        return None
    points = [float(vote.answer == "left") for vote in decided]
    found = share_of_votes(points, [vote.prompt for vote in decided], [""] * len(decided))
    return share(found, len(decided))


def _gold(votes: Sequence[Vote], better: Mapping[frozenset[str], str]) -> Numbers | None:
    """Share of gold items in which the better image was preferred; anything else is wrong."""
    asked = [v for v in votes if v.chosen_by == "gold" and frozenset(v.shown) in better]
    asked = [vote for vote in asked if vote.answer != SKIP]
    if not asked:
        return None
    right = [float(_meant(vote) == better[frozenset(vote.shown)]) for vote in asked]
    found = share_of_votes(right, [vote.prompt for vote in asked], [""] * len(asked))
    return share(found, len(asked))


def chosen_by(votes: Sequence[Vote]) -> dict[str, int]:
    """Count votes by the rule that chose their task."""
    return dict(Counter(vote.chosen_by for vote in votes))
