"""Picks of a rule: pairs and dropped groups; and how pairs are written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from tastemaker.config.datasets import PairFilters
from tastemaker.core.errors import TastemakerError
from tastemaker.storage.artifact import Artifact
from tastemaker.storage.files import config_key
from tastemaker.storage.groups import Group
from tastemaker.storage.pairs import PairSet
from tastemaker.storage.pool import Pool


@dataclass(frozen=True)
class Pick:
    """A pair: indices of chosen and rejected in their groups, and its margin."""

    chosen: int
    rejected: int
    margin: float


@dataclass(frozen=True)
class Dropped:
    """A count of items, or of pairs, that a rule dropped.

    Args:
        why: The reason, which names the unit where that is not the item.
        number: Number of items.
    """

    why: str
    number: int = 1


def checked(rule: str, returned: object) -> Iterator[Pick | Dropped]:
    """Yield a rule's picks and drops, refusing other values, which a plugin might return.

    Args:
        rule: Name of the rule, for messages.
        returned: Return value of the rule.

    Raises:
        TastemakerError: A value is neither `Pick` nor `Dropped`.
    """
    for pick in returned if isinstance(returned, Iterable) else (returned,):
        if not isinstance(pick, Pick | Dropped):
            raise TastemakerError(
                f"rule {rule!r} gave {pick!r:.60}; a rule yields Pick(chosen, rejected, margin) and"
                " Dropped(reason)."
            )
        yield pick


def filtered(
    picks: Iterable[Pick | Dropped], group: Group, filters: PairFilters
) -> Iterator[Pick | Dropped]:
    """Drop a rule's picks whose chosen image scores too low, or leads by too little.

    Args:
        picks: Picks and drops of a rule.
        group: The group.
        filters: Least scores and leads, inclusive, by scorer.

    Yields:
        The picks that are kept, and `Dropped` for the others.

    Raises:
        TastemakerError: The pool was not scored by one of the scorers.
    """
    for pick in picks:
        if isinstance(pick, Pick):
            yield _too_low(pick, group, filters) or pick
        else:
            yield pick


def _too_low(pick: Pick, group: Group, filters: PairFilters) -> Dropped | None:
    for scorer, least in filters.min_score.items():
        if group.scored_by(scorer)[pick.chosen] < least:
            return Dropped(f"pairs whose chosen image has less than {least:g} by {scorer}")
    for scorer, least in filters.min_gap.items():
        scores = group.scored_by(scorer)
        if scores[pick.chosen] - scores[pick.rejected] < least:
            return Dropped(f"pairs with a gap of less than {least:g} by {scorer}")
    return None


def extremes(scores: list[float]) -> Iterator[Pick | Dropped]:
    """Pick the best against the worst of one group; ties give none, the first of equals counts."""
    best, worst = highest(scores), lowest(scores)
    if scores[best] > scores[worst]:
        yield Pick(best, worst, scores[best] - scores[worst])
    else:
        yield Dropped("all candidates tie")


def highest(scores: list[float]) -> int:
    """Return the index of the highest score, the first among equals."""
    return max(range(len(scores)), key=lambda i: (scores[i], -i))


def lowest(scores: list[float]) -> int:
    """Return the index of the lowest score, the first among equals."""
    return min(range(len(scores)), key=lambda i: (scores[i], i))


def widest(picks: Iterable[Pick], most: int | None) -> Iterator[Pick | Dropped]:
    """Yield the picks of one group by falling margin, up to a number; the rest are dropped.

    Args:
        picks: Picks in any order.
        most: Number of picks to keep; None keeps all.

    Yields:
        The picks, and `Dropped` for the rest.
    """
    ranked = sorted(picks, key=lambda pick: (-pick.margin, pick.chosen, pick.rejected))
    yield from ranked[:most]
    if most is not None and len(ranked) > most:
        yield Dropped(f"pairs beyond the widest {most} of their prompt", len(ranked) - most)


def pair_row(chosen: Group, rejected: Group, pick: Pick, rule: str) -> dict[str, Any]:
    """Return one row of `pairs.parquet`."""
    ids = chosen.candidate_ids[pick.chosen], rejected.candidate_ids[pick.rejected]
    return {
        "pair_id": config_key(*ids),
        "prompt_id": chosen.prompt_id,
        "prompt": chosen.prompt,
        "chosen_id": ids[0],
        "rejected_id": ids[1],
        "rule": rule,
        "margin": pick.margin,
    }


@dataclass
class PairRows:
    """Rows of the picked pairs; iterating fills `dropped` with rejections per reason.

    Args:
        found: Chosen side, rejected side, and a pick or drop of the rule.
        rule: Name of the rule, for the rows.
        dropped: Counts by reason, filled by the loop.
    """

    found: Iterable[tuple[Group, Group, Pick | Dropped]]
    rule: str
    dropped: Counter[str] = field(default_factory=Counter)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for chosen, rejected, pick in self.found:
            if isinstance(pick, Dropped):
                self.dropped[pick.why] += pick.number
                continue
            row = pair_row(chosen, rejected, pick, self.rule)
            if row["chosen_id"] == row["rejected_id"]:  # a tie of pools that share an image
                self.dropped["chosen and rejected are one image"] += 1
            else:
                yield row


def finish_pairs(
    artifact: Artifact,
    rows: PairRows,
    pools: Sequence[Pool],
    of: str,
    none_left: Callable[[str], str],
) -> None:
    """Write pairs, finish their artifact, and print their number and the dropped ones by reason.

    Args:
        artifact: The output folder.
        rows: The pairs, written as they come.
        pools: Pools of their images.
        of: The pairs' origin, for the message.
        none_left: Makes the error message for an empty result from the dropped counts.

    Raises:
        TastemakerError: The rule leaves no pair.
    """
    pairs = PairSet(artifact.folder).write(rows, pools)
    why = "".join(f"; {number} dropped: {reason}" for reason, number in rows.dropped.items())
    if not pairs:
        raise TastemakerError(none_left(why))
    artifact.finish(pairs=pairs, dropped=dict(rows.dropped))
    print(f"{pairs} pairs of {of}{why}")
