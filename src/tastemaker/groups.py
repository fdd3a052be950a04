"""Candidates that compete with one another, with their scores: what pair and join rules see."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from pydantic import Field

from tastemaker.candidates import item_of
from tastemaker.data_sections import PairFilters
from tastemaker.errors import TastemakerError, nearest
from tastemaker.files import config_key
from tastemaker.records import PairSet, Pool, Stage, finished_key

if TYPE_CHECKING:
    import pyarrow as pa

ScorerName = Annotated[str, Field(description="Column of the pool's scores.")]
ZScored = Annotated[
    bool, Field(description="Divide scores by their standard deviation over the whole pool.")
]

Rule = TypeVar("Rule", bound=Callable[..., Iterator[Any]])


@dataclass
class Group:
    """One item's candidates, in pool order.

    Args:
        prompt_id: The prompt's id.
        prompt: Its text.
        candidate_ids: Ids, one a candidate.
        scores: Scorer name to scores, one a candidate.
        item_id: The real image that they belong to, or else the prompt's id.
        deviations: Scorer name to the standard deviation of its scores over the whole pool.
    """

    prompt_id: str
    prompt: str
    candidate_ids: list[str] = field(default_factory=list)
    scores: dict[str, list[float]] = field(default_factory=dict)
    item_id: str = ""
    deviations: Mapping[str, float] = field(default_factory=dict)

    def scored_by(self, scorer: str | Mapping[str, float], *, zscored: bool = False) -> list[float]:
        """Return one scorer's scores, or the weighted sum of several: `sum_k weight_k * score_k`.

        Args:
            scorer: Scorer name, or scorer name to weight.
            zscored: Divide each scorer's scores by their standard deviation over the whole pool.
                Their mean stays, for no difference of scores shows it.

        Returns:
            One number a candidate.

        Raises:
            TastemakerError: The pool was not scored by it.
        """
        total = [0.0] * len(self.candidate_ids)
        for name, weight in ({scorer: 1.0} if isinstance(scorer, str) else scorer).items():
            if name not in self.scores:
                raise TastemakerError(
                    f"the pool has no scores by {name!r}; run `score` with it."
                    f" {nearest(name, self.scores)}"
                )
            # Without any deviation all scores are equal: no unit shows.
            unit = (self.deviations[name] or 1.0) if zscored else 1.0
            total = [t + weight * (s / unit) for t, s in zip(total, self.scores[name], strict=True)]
        return total


@dataclass(frozen=True)
class Pick:
    """A pair: indices of chosen and rejected in their groups, and by how much it won."""

    chosen: int
    rejected: int
    margin: float


@dataclass(frozen=True)
class Dropped:
    """What a rule says of what gives no pair, to be counted.

    Args:
        why: The reason, which names what is counted where that is not the item.
        number: How many.
    """

    why: str
    number: int = 1


class Groups:
    """A scored pool as groups of competing candidates, in the order of their first candidates.

    Read from disk at each loop. In memory are one shard and the groups that have begun and are not
    whole: a few where a prompt's candidates follow one another, as in a pool of `generate`.

    Args:
        pool: The pool.
        only: Candidates to take; None takes all.

    Raises:
        TastemakerError: Scores and candidates do not belong together.
    """

    def __init__(self, pool: Pool, only: Collection[str] | None = None) -> None:
        import pyarrow as pa
        import pyarrow.compute as pc

        self.pool = pool
        self.only = only
        self.sizes: Counter[str] = Counter()
        scorers = pool.scorers()
        scores = []
        for table in pool.scored_shards():
            self.sizes.update(item for item, _ in self._items(table))
            scores.append(table.select(scorers))
        columns = pa.concat_tables(scores)
        self.deviations = {each: pc.stddev(columns[each]).as_py() for each in scorers}

    def __len__(self) -> int:
        return len(self.sizes)

    def __iter__(self) -> Iterator[Group]:
        begun: dict[str, Group] = {}
        for table in self.pool.scored_shards():
            for item, row in self._items(table):
                if item not in begun:
                    begun[item] = self._new(item, row)
                begun[item].candidate_ids.append(row["candidate_id"])
                for scorer, scores in begun[item].scores.items():
                    scores.append(row[scorer])
                while (first := next(iter(begun), None)) is not None and self._whole(begun[first]):
                    yield begun.pop(first)

    def _items(self, table: pa.Table) -> Iterator[tuple[str, dict[str, Any]]]:
        for row in table.to_pylist():
            if self.only is None or row["candidate_id"] in self.only:
                yield item_of(row), row

    def _new(self, item: str, row: Mapping[str, Any]) -> Group:
        return Group(
            row["prompt_id"],
            row["prompt"],
            scores={scorer: [] for scorer in self.deviations},
            item_id=item,
            deviations=self.deviations,
        )

    def _whole(self, group: Group) -> bool:
        return len(group.candidate_ids) == self.sizes[group.item_id]


def met(ours: Iterable[Group], theirs: Iterable[Group]) -> Iterator[tuple[Group, Group | None]]:
    """Match the groups of two pools by their real image, or else by prompt.

    Args:
        ours: Every one comes once.
        theirs: What they are matched with; held in memory.

    Yields:
        Each of ours, with its match or None.
    """
    others = {group.item_id: group for group in theirs}
    for group in ours:
        yield group, others.get(group.item_id) or others.get(group.prompt_id)


def filtered(
    picks: Iterable[Pick | Dropped], group: Group, filters: PairFilters
) -> Iterator[Pick | Dropped]:
    """Drop a rule's picks whose chosen image scores too low, or leads by too little.

    Args:
        picks: What a rule says of a group.
        group: The group.
        filters: Least scores and leads, inclusive, by scorer.

    Yields:
        The picks that are kept, and why the others are not.

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


def widest(picks: Iterable[Pick], most: int | None) -> Iterator[Pick | Dropped]:
    """The picks of one group by falling margin, at most so many; those beyond are dropped.

    Args:
        picks: In any order.
        most: How many to keep; None keeps all.

    Yields:
        The picks, and how many more there were.
    """
    ranked = sorted(picks, key=lambda pick: (-pick.margin, pick.chosen, pick.rejected))
    yield from ranked[:most]
    if most is not None and len(ranked) > most:
        yield Dropped(f"pairs beyond the widest {most} of their prompt", len(ranked) - most)


def remedied_by(remedy: Callable[..., str]) -> Callable[[Rule], Rule]:
    """Give a pair rule its own words for a pool in which it finds no pair.

    Args:
        remedy: Takes all groups and the rule's options; says what is there and what to change.

    Returns:
        A decorator that returns the rule.
    """

    def attach(rule: Rule) -> Rule:
        rule.remedy = remedy  # type: ignore[attr-defined]
        return rule

    return attach


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


@dataclass
class SortedOut:
    """What a rule says of all items: a loop gives the rows of its pairs, and counts the rest.

    Args:
        found: Chosen side, rejected side, and what the rule yields for them.
        rule: Its name, for the rows.
        dropped: Filled by the loop: how many were dropped for which reason.
    """

    found: Iterable[tuple[Group, Group, Pick | Dropped]]
    rule: str
    dropped: Counter[str] = field(default_factory=Counter)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for chosen, rejected, pick in self.found:
            if isinstance(pick, Dropped):
                self.dropped[pick.why] += pick.number
            else:
                yield pair_row(chosen, rejected, pick, self.rule)


def finish_pairs(
    stage: Stage, rows: SortedOut, pools: Sequence[Pool], of: str, none_left: Callable[[str], str]
) -> Path:
    """Write pairs, end their stage, and say how many there are and what was dropped for what.

    Args:
        stage: The room's stage.
        rows: The pairs, written as they come.
        pools: Where their images lie.
        of: What the pairs were made of, for the message.
        none_left: Turns what was dropped into the message of the error where there is no pair.

    Returns:
        The stage's folder.

    Raises:
        TastemakerError: There is no pair.
    """
    pairs = PairSet(stage.folder).write(rows, pools)
    why = "".join(f"; {number} dropped: {reason}" for reason, number in rows.dropped.items())
    if not pairs:
        raise TastemakerError(none_left(why))
    stage.finish(pairs=pairs, dropped=dict(rows.dropped))
    print(f"{pairs} pairs of {of}{why}")
    return stage.folder
