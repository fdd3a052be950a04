"""Candidates that compete with one another, with their scores: what pair and join rules see."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tastemaker.candidates import item_of
from tastemaker.errors import TastemakerError, nearest
from tastemaker.files import config_key
from tastemaker.records import PairSet, Pool, Stage, finished_key


@dataclass
class Group:
    """One item's candidates, in pool order.

    Args:
        prompt_id: The prompt's id.
        prompt: Its text.
        candidate_ids: Ids, one a candidate.
        scores: Scorer name to scores, one a candidate.
        item_id: The real image that they belong to, or else the prompt's id.
    """

    prompt_id: str
    prompt: str
    candidate_ids: list[str] = field(default_factory=list)
    scores: dict[str, list[float]] = field(default_factory=dict)
    item_id: str = ""

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
    """A pair: indices of chosen and rejected in their groups, and by how much it won."""

    chosen: int
    rejected: int
    margin: float


@dataclass(frozen=True)
class Dropped:
    """What a rule says of an item that gives no pair, to be counted."""

    why: str


def groups(pool: Pool, only: Collection[str] | None = None) -> list[Group]:
    """Read a scored pool as groups of competing candidates.

    Args:
        pool: The pool.
        only: Candidates to take; None takes all.

    Returns:
        Groups in the order of their first candidates.
    """
    scorers = pool.scorers()
    found: dict[str, Group] = {}
    for row in pool.scores().to_pylist():
        if only is not None and row["candidate_id"] not in only:
            continue
        item = item_of(row)
        if item not in found:
            lists: dict[str, list[float]] = defaultdict(list)
            found[item] = Group(row["prompt_id"], row["prompt"], scores=lists, item_id=item)
        found[item].candidate_ids.append(row["candidate_id"])
        for scorer in scorers:
            found[item].scores[scorer].append(row[scorer])
    return list(found.values())


def met(ours: Sequence[Group], theirs: Sequence[Group]) -> Iterator[tuple[Group, Group | None]]:
    """Match the groups of two pools by their real image, or else by prompt.

    Args:
        ours: Every one comes once.
        theirs: What they are matched with.

    Yields:
        Each of ours, with its match or None.
    """
    others = {group.item_id: group for group in theirs}
    for group in ours:
        yield group, others.get(group.item_id) or others.get(group.prompt_id)


def extremes(scores: list[float]) -> Iterator[Pick | Dropped]:
    """The best against the worst of one group; ties give none, among equals the first is taken."""
    best, worst = highest(scores), lowest(scores)
    if scores[best] > scores[worst]:
        yield Pick(best, worst, scores[best] - scores[worst])
    else:
        yield Dropped("all candidates tie")


def highest(scores: list[float]) -> int:
    """Index of the highest score, the first among equals."""
    return max(range(len(scores)), key=lambda i: (scores[i], -i))


def lowest(scores: list[float]) -> int:
    """Index of the lowest score, the first among equals."""
    return min(range(len(scores)), key=lambda i: (scores[i], i))


def score_keys(pool: Pool) -> dict[str, str]:
    """Keys of a pool's scores, as inputs of the stage that pairs them."""
    return {name: finished_key(pool.folder / "scores" / name) for name in pool.scorers()}


def pair_row(chosen: Group, rejected: Group, pick: Pick, rule: str) -> dict[str, Any]:
    """One row of `pairs.parquet`."""
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


def sorted_out(
    found: Iterable[tuple[Group, Group, Pick | Dropped]], rule: str
) -> tuple[list[dict[str, Any]], Counter[str]]:
    """Divide what a rule says of all items into rows of pairs and counted reasons.

    Args:
        found: Chosen side, rejected side, and what the rule yields for them.
        rule: Its name, for the rows.

    Returns:
        Rows of `pair_row`, and how many items were dropped for which reason.
    """
    rows: list[dict[str, Any]] = []
    dropped: Counter[str] = Counter()
    for chosen, rejected, pick in found:
        if isinstance(pick, Dropped):
            dropped[pick.why] += 1
        else:
            rows.append(pair_row(chosen, rejected, pick, rule))
    return rows, dropped


def finish_pairs(
    stage: Stage,
    rows: list[dict[str, Any]],
    pools: Sequence[Pool],
    dropped: Mapping[str, int],
    of: str,
) -> Path:
    """Write pairs, end their stage, and say how many there are and what was dropped for what.

    Args:
        stage: The room's stage.
        rows: Of `pair_row`, one or more.
        pools: Where their images lie.
        dropped: Reason to number of items.
        of: What the pairs were made of, for the message.

    Returns:
        The stage's folder.
    """
    import pyarrow as pa

    PairSet(stage.folder).write(pa.Table.from_pylist(rows), pools)
    stage.finish(pairs=len(rows), dropped=dict(dropped))
    why = "".join(f"; {number} dropped: {reason}" for reason, number in dropped.items())
    print(f"{len(rows)} pairs of {of}{why}")
    return stage.folder
