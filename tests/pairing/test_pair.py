"""Pair rules as properties: what they may pick, and that order of chance never enters."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tastemaker.core.errors import TastemakerError
from tastemaker.pairing.pair import best_worst, harmonic, threshold, weighted
from tastemaker.pairing.picks import Dropped, Pick, checked
from tastemaker.storage.artifact import Artifact
from tastemaker.storage.groups import Group, Groups
from tastemaker.storage.parquet import write_table
from tastemaker.storage.pool import Pool

scores = st.lists(st.integers(-5, 5).map(float), min_size=1, max_size=8)


def group(*columns: list[float]) -> Group:
    names = ("a", "b", "c")
    ids = [f"id{i}" for i in range(len(columns[0]))]
    return Group("p", "a prompt", ids, dict(zip(names, columns, strict=False)))


@given(scores)
def test_best_worst_spans_the_scores(values: list[float]) -> None:
    picks = list(best_worst(group(values), scorer="a"))
    if max(values) == min(values):
        assert picks == [Dropped("all candidates tie")]
    else:
        (pick,) = picks
        assert values[pick.chosen] == max(values)
        assert values[pick.rejected] == min(values)
        assert pick.margin == max(values) - min(values)


def test_among_equals_the_first_is_taken() -> None:
    assert list(best_worst(group([1.0, 3.0, 3.0, 1.0]), scorer="a")) == [Pick(1, 0, 2.0)]


@given(scores, st.integers(0, 6).map(float), st.integers(1, 5))
def test_threshold_keeps_the_widest_gaps(values: list[float], gap: float, most: int) -> None:
    found = list(threshold(group(values), scorer="a", gap=gap, max_pairs=most))
    picks = [pick for pick in found if isinstance(pick, Pick)]
    dropped = sum(drop.number for drop in found if isinstance(drop, Dropped))
    assert len(picks) + dropped == len(values) * (len(values) - 1), "every ordered pair is counted"
    margins = [pick.margin for pick in picks]
    assert all(margin > gap for margin in margins)
    assert margins == sorted(margins, reverse=True)
    assert len({(pick.chosen, pick.rejected) for pick in picks}) == len(picks)
    possible = sorted((c - r for c in values for r in values if c - r > gap), reverse=True)
    assert margins == possible[:most]


@given(scores)
def test_threshold_without_limits_keeps_what_the_score_orders(values: list[float]) -> None:
    found = threshold(group(values), scorer="a", gap=0.0, max_pairs=None)
    picks = [(pick.chosen, pick.rejected) for pick in found if isinstance(pick, Pick)]
    places = range(len(values))
    assert sorted(picks) == [(c, r) for c in places for r in places if values[c] > values[r]]


def test_threshold_takes_a_weighted_sum() -> None:
    both = group([0.0, 1.0, 0.0], [0.0, 0.0, 4.0])
    found = threshold(both, scorer={"a": 0.75, "b": 0.25}, gap=0.8)
    assert list(found)[1:] == [Pick(2, 0, 1.0)]


def test_zscores_count_in_spreads_of_the_pool() -> None:
    both = group([0.0, 1.0, 0.0], [0.0, 0.0, 4.0])
    both.deviations = {"a": 0.1, "b": 2.0}
    weights = {"a": 0.5, "b": 0.5}
    assert list(weighted(both, weights=weights)) == [Pick(2, 0, 2.0)]
    assert list(weighted(both, weights=weights, zscored=True)) == [Pick(1, 0, 5.0)]
    found = threshold(both, scorer="b", gap=1.5, zscored=True)
    assert list(found)[1:] == [Pick(2, 0, 2.0), Pick(2, 1, 2.0)]


def test_harmonic_rewards_by_hand() -> None:
    """s_I = .9, .5, .7 and s_T = .5, .7, .6 of cosines; at 1/2 their harmonic means."""
    cosines = group([0.8, 0.0, 0.4], [0.0, 0.4, 0.2])
    options = {"fidelity": "a", "prompt": "b"}
    means = [2 / (1 / i + 1 / t) for i, t in ((0.9, 0.5), (0.5, 0.7), (0.7, 0.6))]
    (pick,) = harmonic(cosines, **options, weight=0.5)
    assert pick == Pick(2, 1, pytest.approx(means[2] - means[1]))
    (pick,) = harmonic(cosines, **options, weight=0.0)
    assert pick == Pick(1, 0, pytest.approx(0.2))
    (pick,) = harmonic(cosines, **options, weight=1.0)
    assert pick == Pick(0, 1, pytest.approx(0.4))
    opposite = group([-1.0, 1.0], [1.0, -0.5])
    assert list(harmonic(opposite, **options)) == [Pick(1, 0, pytest.approx(1 / (0.3 + 0.7 * 4)))]
    with pytest.raises(TastemakerError, match="takes cosines"):
        list(harmonic(group([20.0, 21.0], [0.0, 0.4]), **options))


def test_a_score_that_never_differs_has_no_unit() -> None:
    same = group([3.0, 3.0])
    same.deviations = {"a": 0.0}
    assert list(weighted(same, weights={"a": 1.0}, zscored=True)) == [Dropped("all candidates tie")]


@given(scores, st.floats(-3, 3), st.floats(-3, 3), st.data())
def test_weighted_follows_the_sum(
    values: list[float], first: float, second: float, data: st.DataObject
) -> None:
    other = data.draw(st.lists(scores.flatmap(st.sampled_from), min_size=len(values)))
    other = other[: len(values)]
    sums = [first * a + second * b for a, b in zip(values, other, strict=True)]
    for pick in weighted(group(values, other), weights={"a": first, "b": second}):
        if isinstance(pick, Dropped):
            assert max(sums) == min(sums)
            continue
        assert sums[pick.chosen] == max(sums)
        assert sums[pick.rejected] == min(sums)
        assert pick.margin > 0


@given(scores)
def test_weighted_by_one_scorer_is_best_worst(values: list[float]) -> None:
    one = list(weighted(group(values), weights={"a": 1.0}))
    assert one == list(best_worst(group(values), scorer="a"))


def test_a_scorer_that_did_not_score_is_named_with_the_nearest() -> None:
    known = Group("p", "a prompt", ["x", "y"], {"nano_judge": [1.0, 2.0]})
    with pytest.raises(TastemakerError, match="Did you mean nano_judge"):
        list(best_worst(known, scorer="nano_jugde"))


@settings(max_examples=50)
@given(
    st.lists(st.integers(0, 4), min_size=1, max_size=30),
    st.integers(1, 7),
    st.sets(st.integers(0, 29)),
)
def test_groups_come_in_the_order_of_their_first_candidates(
    items: list[int], shard: int, left_out: set[int]
) -> None:
    """However the candidates of a prompt lie among the others, over shards or left out."""
    with tempfile.TemporaryDirectory() as folder:
        pool = Pool(Path(folder))
        rows = [
            {"candidate_id": str(i), "prompt_id": f"p{item}", "prompt": f"prompt {item}"}
            | {"seed": i, "source": "generated", "source_id": "", "score": 0.5 * i}
            for i, item in enumerate(items)
        ]
        artifact = Artifact(pool.folder / "scores" / "score", "score", {})
        with artifact.claimed():
            for index, start in enumerate(range(0, len(rows), shard)):
                table = pa.Table.from_pylist(rows[start : start + shard])
                write_table(pool.shard(index), table.drop_columns("score"))
                write_table(pool.score_file("score", pool.shard(index)), table)
            artifact.finish()
        kept = [i for i in range(len(items)) if i not in left_out]
        found = Groups(pool, {str(i) for i in kept})
        expected: dict[int, list[int]] = {}
        for i in kept:
            expected.setdefault(items[i], []).append(i)
        for _ in range(2):
            held = list(found)
            assert len(found) == len(held) == len(expected)
            assert [
                (each.prompt, each.item_id, [int(name) for name in each.candidate_ids])
                for each in held
            ] == [(f"prompt {item}", f"p{item}", ids) for item, ids in expected.items()]
            for each in held:
                assert each.scores["score"] == [0.5 * int(name) for name in each.candidate_ids]
                spread = np.std([0.5 * i for i in range(len(items))])
                assert each.deviations["score"] == pytest.approx(spread)


def test_only_groups_that_are_not_whole_are_held(tmp_path: Path) -> None:
    """A prompt's candidates together: after each group nothing is left in memory but the shard."""
    pool = Pool(tmp_path)
    for shard in range(4):
        rows = [
            {"candidate_id": f"{shard}-{i}", "prompt_id": f"{shard}-{i // 2}", "prompt": "x"}
            | {"seed": i, "source": "generated", "source_id": ""}
            for i in range(4)
        ]
        write_table(pool.shard(shard), pa.Table.from_pylist(rows))
    read: list[int] = []
    whole = pool.scored_shards

    def counted() -> Iterator[pa.Table]:
        for index, table in enumerate(whole()):
            read.append(index)
            yield table

    found = Groups(pool)
    object.__setattr__(pool, "scored_shards", counted)
    seen = [(group.prompt_id, len(read)) for group in found]
    assert seen == [(f"{shard}-{i}", shard + 1) for shard in range(4) for i in range(2)]


@pytest.mark.parametrize("returned", [5, None, [1], "ab"])
def test_what_a_rule_gives_is_picks(returned: object) -> None:
    with pytest.raises(TastemakerError, match="rule 'mine' gave"):
        list(checked("mine", returned))
