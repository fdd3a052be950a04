"""Groups of competing candidates with their scores, the input of pair and join rules."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from tastemaker.config.sections import Section, columns
from tastemaker.core.errors import TastemakerError, nearest
from tastemaker.core.values import Names
from tastemaker.storage.artifact import finished_key
from tastemaker.storage.candidates import item_of
from tastemaker.storage.pool import Pool

if TYPE_CHECKING:
    import pyarrow as pa

ScorerName = Annotated[str, Names("column"), Field(description="Column of the pool's scores.")]
ZScored = Annotated[
    bool, Field(description="Divide scores by their standard deviation over the whole pool.")
]


@dataclass
class Group:
    """One item's candidates, in pool order.

    Args:
        prompt_id: The prompt's id.
        prompt: Its text.
        candidate_ids: Ids, one per candidate.
        scores: Scorer name to scores, one per candidate; NaN where one has none.
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
            One number per candidate.

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


class Groups:
    """A scored pool as groups of competing candidates, in the order of their first candidates.

    Read from disk at each loop. In memory are one shard and the groups that have begun and are not
    whole: a few where a prompt's candidates follow one another, as in a pool of `generate`.

    Args:
        pool: The pool.
        only: Candidates to take; None takes all.
        scored: Columns in which a candidate must have a score to be taken: images that nobody voted
            on have none by people. `unscored` counts those left out.

    Raises:
        TastemakerError: Scores and candidates do not belong together.
    """

    def __init__(
        self, pool: Pool, only: Collection[str] | None = None, scored: Collection[str] = ()
    ) -> None:
        import pyarrow as pa
        import pyarrow.compute as pc

        self.pool = pool
        self.only = only
        self.scored = set(scored)
        self.unscored = 0
        self.sizes: Counter[str] = Counter()
        scorers = pool.scorers()
        scores = []
        for table in pool.scored_shards():
            before = self.sizes.total()
            self.sizes.update(item for item, _ in self._items(table))
            self.unscored += self._wanted(table) - (self.sizes.total() - before)
            scores.append(table.select(scorers))
        columns = pa.concat_tables(scores)
        self.deviations = {each: pc.stddev(columns[each]).as_py() or 0.0 for each in scorers}

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
                    scores.append(math.nan if row[scorer] is None else row[scorer])
                while (first := next(iter(begun), None)) is not None and self._whole(begun[first]):
                    yield begun.pop(first)

    def _items(self, table: pa.Table) -> Iterator[tuple[str, dict[str, Any]]]:
        for row in table.to_pylist():
            named = self.only is None or row["candidate_id"] in self.only
            if named and all(row.get(name, 0.0) is not None for name in self.scored):
                yield item_of(row), row

    def _wanted(self, table: pa.Table) -> int:
        """Count the candidates of a table that are taken if they have scores."""
        if self.only is None:
            return int(table.num_rows)
        return sum(name in self.only for name in table["candidate_id"].to_pylist())

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


def matched(ours: Iterable[Group], theirs: Iterable[Group]) -> Iterator[tuple[Group, Group | None]]:
    """Match the groups of two pools by their real image, or else by prompt.

    Args:
        ours: Every one comes once.
        theirs: Groups that they are matched with; kept in memory.

    Yields:
        Each of ours, with its match or None.
    """
    others = {group.item_id: group for group in theirs}
    for group in ours:
        yield group, others.get(group.item_id) or others.get(group.prompt_id)


def score_keys(pool: Pool, read: Collection[str] | None = None) -> dict[str, str]:
    """Return the keys of a pool's scores, as inputs of the artifact that depends on them.

    Args:
        pool: A scored pool.
        read: Columns that are read; None: all.
    """
    names = [name for name in pool.scorers() if read is None or name in read]
    return {name: finished_key(pool.folder / "scores" / name) for name in names}


def columns_read(section: Section, code: Mapping[str, str]) -> set[str] | None:
    """Return the columns of scores that a rule reads, or None where a plugin's code decides.

    Args:
        section: The rule's section, whose marked options name columns.
        code: Of the rule, from its table; empty for the package's own.
    """
    return None if code else {name for _, name in columns(section)}
