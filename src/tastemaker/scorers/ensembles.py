"""Scores made of other scores: columns that are worked out when their members are there.

To add one, decorate a function of all members' scores in a pool and of the groups that compete:

    @ENSEMBLES.register("lowest")
    def lowest(scores: np.ndarray, groups: np.ndarray, *, of: Members) -> np.ndarray:
        return scores.min(1)

Its option `of` names the members, a list or a mapping.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

from pydantic import Field

from tastemaker.core.lazy_torch import np
from tastemaker.core.registry import ENSEMBLES

if TYPE_CHECKING:
    from numpy.typing import NDArray

Scores: TypeAlias = "NDArray[np.float64]"
Groups: TypeAlias = "NDArray[np.int64]"

Members = Annotated[
    tuple[str, ...], Field(min_length=1, description="Columns, before this one in the list.")
]
Weighted = Annotated[
    dict[str, float], Field(min_length=1, description="Column to weight, columns before this one.")
]
Within = Annotated[
    Literal["pool", "prompt"],
    Field(description="Scores to compare with: the whole pool, or its prompt's candidates."),
]


@ENSEMBLES.register("mean")
def mean(scores: Scores, groups: Groups, *, of: Members, within: Within = "pool") -> Scores:
    """Mean of z-scores: `score_i = 1/K sum_k (s_ik - mean_k) / std_k`, about -3 to 3, mean 0.

    Every member weighs the same, whatever its scale. Within a prompt, hard and easy prompts weigh
    the same too; within the pool, prompts whose candidates differ more give wider pairs. A member
    without any spread adds 0. The numbers compare in one pool alone.

    Args:
        scores: Shape [candidates, members].
        groups: Whose candidate each one is, shape [candidates].
        of: The members' columns.
        within: Over what mean and standard deviation (of the population) are taken.

    Returns:
        Shape [candidates].

    Example:
        >>> mean(np.array([[0.0], [2.0], [4.0]]), np.zeros(3, dtype=np.int64), of=("a",)).round(3)
        array([-1.225,  0.   ,  1.225])
    """
    return standardised(scores, _of(groups, within)).mean(1)


@ENSEMBLES.register("rank")
def rank(scores: Scores, groups: Groups, *, of: Members, within: Within = "prompt") -> Scores:
    """Mean of ranks: `score_i = 1/K sum_k rank_ik / (n - 1)`, from 0 (last) to 1 (first by all).

    Only the order by each member enters: a member whose scores run away, as those of a scorer that
    is being gamed do, cannot outvote the others. By how much a picture is better is lost. Equal
    scores share their mean rank; a candidate alone has 0.5.

    Args:
        scores: Shape [candidates, members].
        groups: Whose candidate each one is, shape [candidates].
        of: The members' columns.
        within: Among what ranks are given.

    Returns:
        Shape [candidates].

    Example:
        >>> group = np.zeros(3, dtype=np.int64)
        >>> rank(np.array([[0.1, 5.0], [0.2, 5.0], [9.0, 7.0]]), group, of=("a", "b"))
        array([0.125, 0.375, 1.   ])
    """
    ranks = np.empty_like(scores)
    group_of = _of(groups, within)
    order = np.argsort(group_of, kind="stable")
    starts = np.flatnonzero(np.diff(group_of[order])) + 1
    for members in np.split(order, starts):
        for column in range(scores.shape[1]):
            ranks[members, column] = _ranks(scores[members, column])
    return ranks.mean(1)


@ENSEMBLES.register("weighted")
def weighted(
    scores: Scores,
    groups: Groups,
    *,
    of: Weighted,
    zscored: Annotated[
        bool, Field(description="Weigh z-scores over the pool in place of scores as they are.")
    ] = True,
) -> Scores:
    """Weighted sum: `score_i = sum_k w_k z_ik`, with z-scores over the pool, or scores as they are.

    As they are, a scorer of a scale of 100 outweighs one of a scale of 1: take that for scores
    whose units you mean to add. A negative weight is a penalty.

    Args:
        scores: Shape [candidates, members].
        groups: Whose candidate each one is, shape [candidates].
        of: The members' columns, with their weights.
        zscored: Bring each member to mean 0 and standard deviation 1 over the pool before.

    Returns:
        Shape [candidates].

    Example:
        >>> scores = np.array([[1.0, 10.0], [3.0, 30.0]])
        >>> weighted(scores, np.zeros(2, dtype=np.int64), of={"a": 1.0, "b": -0.5})
        array([-0.5,  0.5])
    """
    if zscored:
        scores = standardised(scores, np.zeros_like(groups))
    return (scores * np.array(list(of.values()))).sum(1)


def standardised(scores: Scores, groups: Groups) -> Scores:
    """`(s - mean) / std` of every column over each group; 0 where a group has no spread.

    Args:
        scores: Shape [candidates, columns].
        groups: Shape [candidates], counted from 0.

    Returns:
        Shape [candidates, columns].
    """
    count = np.bincount(groups)[:, None]

    def mean_of(values: Scores) -> Scores:
        sums = [np.bincount(groups, column) for column in values.T]
        return (np.stack(sums, 1) / count)[groups]

    apart = scores - mean_of(scores)
    deviation = np.sqrt(mean_of(apart**2))
    # Equal scores have a deviation of some rounding where their mean is not exact.
    flat = deviation <= 1e-12 * np.abs(scores)
    return np.where(flat, 0, apart / np.where(flat, 1, deviation))


def _of(groups: Groups, within: str) -> Groups:
    return groups if within == "prompt" else np.zeros_like(groups)


def _ranks(scores: Scores) -> Any:
    """Ranks from 0 to 1, of equal scores their mean."""
    if len(scores) == 1:
        return np.array([0.5])
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    last = counts.cumsum() - 1
    return (last - (counts - 1) / 2)[inverse] / (len(scores) - 1)
