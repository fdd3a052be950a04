"""The plane of two scores as properties: its axes, the window, the order."""

from __future__ import annotations

import statistics
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tastemaker.config.datasets import PairConfig
from tastemaker.config.loading import section
from tastemaker.core.errors import TastemakerError
from tastemaker.core.registry import RULES
from tastemaker.pairing.angle import Difference, angle, differences
from tastemaker.pairing.pair import pair
from tastemaker.pairing.picks import Dropped, Pick
from tastemaker.storage.candidates import candidate_table
from tastemaker.storage.files import write_json
from tastemaker.storage.groups import Group, Groups
from tastemaker.storage.images import encode_png
from tastemaker.storage.pairs import PairSet
from tastemaker.storage.parquet import write_table
from tastemaker.storage.pool import Pool

AXES = {"fidelity": "image", "prompt": "text"}

points = st.lists(
    st.tuples(st.integers(-5, 5).map(float), st.integers(-5, 5).map(float)), max_size=6
)
edges = st.tuples(st.integers(-180, 180), st.integers(-180, 180)).filter(lambda e: e[0] < e[1])


def grouped(*prompts: list[tuple[float, float]]) -> list[Group]:
    """Groups of (image, text) scores, with the deviations of all of them together."""
    every = [point for each in prompts for point in each]
    columns = list(zip(*every, strict=True)) or [(0.0,), (0.0,)]
    spread = dict(zip(("image", "text"), map(statistics.pstdev, columns), strict=True))
    return [
        Group(
            f"p{i}",
            f"prompt {i}",
            [f"p{i}-{j}" for j in range(len(each))],
            {"image": [x for x, _ in each], "text": [y for _, y in each]},
            deviations=spread,
        )
        for i, each in enumerate(prompts)
    ]


def one(*each: tuple[float, float]) -> Group:
    (group,) = grouped(list(each))
    return group


def picks(group: Group, **options: object) -> list[Pick]:
    rule = RULES.bind("angle", {**AXES, **options})
    return [pick for pick in rule(group) if isinstance(pick, Pick)]


def ordered(found: list[Pick]) -> set[tuple[int, int]]:
    return {(pick.chosen, pick.rejected) for pick in found}


class TestWindow:
    def test_both_scores_up_is_kept(self) -> None:
        (pick,) = picks(one((1, 1), (0, 0)))
        assert pick == Pick(0, 1, 2**0.5)  # the margin is the length of the difference

    @pytest.mark.parametrize(
        "chosen",
        [(1, 0), (0, 1), (-1, 1), (1, -1), (-1, 0), (0, -1), (3, 1), (1, 3)],
        ids=["0", "90", "135", "-45", "180", "-90", "18.4", "71.6"],
    )
    def test_beyond_the_window_is_dropped(self, chosen: tuple[float, float]) -> None:
        # In neither order: what is at -45 from one side is at 135 from the other.
        assert not picks(one(chosen, (0, 0)))

    def test_two_down_is_two_up_in_the_other_order(self) -> None:
        assert ordered(picks(one((-1, -1), (0, 0)))) == {(1, 0)}

    def test_small_angles_are_fidelity_and_large_ones_prompt(self) -> None:
        faithful, obedient, base = (3.0, 1.0), (1.0, 3.0), (0.0, 0.0)
        towards_fidelity = picks(one(faithful, obedient, base), low=0, high=30)
        towards_prompt = picks(one(faithful, obedient, base), low=60, high=90)
        assert ordered(towards_fidelity) == {(0, 2)}
        assert ordered(towards_prompt) == {(1, 2)}

    def test_edges_belong_to_it(self) -> None:
        assert picks(one((1, 1), (0, 0)), low=45, high=50)
        assert picks(one((1, 1), (0, 0)), low=40, high=45)

    def test_a_window_below_zero_needs_a_negative_threshold(self) -> None:
        group = one((2, -1), (0, 0))
        assert not picks(group, low=-60, high=0)
        assert ordered(picks(group, low=-60, high=0, threshold=-9)) == {(0, 1)}

    def test_the_threshold_is_exclusive(self) -> None:
        assert not picks(one((2, 2), (0, 0)), threshold=2)
        assert picks(one((2, 2), (0, 0)), threshold=1.9)


@given(points, edges, st.integers(0, 3))
def test_every_pick_lies_in_the_window_and_every_drop_is_counted(
    each: list[tuple[float, float]], window: tuple[int, int], threshold: int
) -> None:
    low, high = window
    group = one(*each)
    found = list(angle(group, **AXES, low=low, high=high, threshold=threshold))
    kept = [pick for pick in found if isinstance(pick, Pick)]
    for pick in kept:
        difference = Difference(
            pick.chosen,
            pick.rejected,
            each[pick.chosen][0] - each[pick.rejected][0],
            each[pick.chosen][1] - each[pick.rejected][1],
        )
        assert low <= difference.angle <= high
        assert difference.d_ts > threshold
        assert pick.margin == difference.length > 0
    assert [pick.margin for pick in kept] == sorted((p.margin for p in kept), reverse=True)
    dropped = sum(drop.number for drop in found if isinstance(drop, Dropped))
    assert len(kept) + dropped == len(each) * (len(each) - 1)


@given(points, edges, st.integers(-20, 3))
def test_a_pair_is_kept_once_and_never_with_its_reverse(
    each: list[tuple[float, float]], window: tuple[int, int], threshold: int
) -> None:
    options = {"low": window[0], "high": window[1], "threshold": threshold}
    if threshold < 0 and window[1] - window[0] >= 180:
        with pytest.raises(TastemakerError, match="less than 180 degrees"):
            picks(one(*each), **options)
        return
    kept = picks(one(*each), **options)
    assert len(kept) == len({frozenset((pick.chosen, pick.rejected)) for pick in kept})


@given(points, st.integers(1, 4))
def test_a_cap_keeps_the_widest_and_counts_the_rest(
    each: list[tuple[float, float]], most: int
) -> None:
    every = picks(one(*each), low=0, high=90)
    found = list(angle(one(*each), **AXES, low=0, high=90, max_pairs=most))
    assert [pick for pick in found if isinstance(pick, Pick)] == every[:most]
    beyond = [drop for drop in found if isinstance(drop, Dropped) and "beyond" in drop.why]
    assert sum(drop.number for drop in beyond) == max(0, len(every) - most)


@given(
    st.lists(points.filter(bool), min_size=1, max_size=3),
    st.sampled_from([0.125, 1.0, 16.0]),
    st.sampled_from([0.25, 1.0, 8.0]),
    st.integers(-4, 4),
    st.integers(-4, 4),
)
def test_zscores_know_neither_scale_nor_shift(
    prompts: list[list[tuple[float, float]]], a: float, b: float, shift: int, other: int
) -> None:
    moved = [[(a * (x + shift), b * (y + other)) for x, y in each] for each in prompts]
    for before, after in zip(grouped(*prompts), grouped(*moved), strict=True):
        margins, others = (
            {(pick.chosen, pick.rejected): pick.margin for pick in picks(group, zscored=True)}
            for group in (before, after)
        )
        assert margins == pytest.approx(others)


def test_raw_scores_do() -> None:
    (before,) = grouped([(3.0, 1.0), (0.0, 0.0)])
    (after,) = grouped([(3.0, 4.0), (0.0, 0.0)])
    assert not picks(before)
    assert picks(after)
    assert picks(before, zscored=True) == picks(after, zscored=True) != []


def test_zscores_of_a_score_that_never_differs() -> None:
    assert not picks(one((1.0, 0.5), (0.0, 0.5)), zscored=True)


@given(points)
def test_differences_come_with_their_reverse(each: list[tuple[float, float]]) -> None:
    found = {
        (each.chosen, each.rejected): each for each in differences(one(*each), "image", "text")
    }
    assert len(found) == len(each) * (len(each) - 1)
    for (c, r), difference in found.items():
        reverse = found[r, c]
        assert (reverse.d_is, reverse.d_ts) == (-difference.d_is, -difference.d_ts)
        if difference.length:
            assert abs(difference.angle - reverse.angle) == pytest.approx(180)


class TestOptions:
    @pytest.mark.parametrize(
        ("options", "words"),
        [
            ({"low": 70, "high": 20}, r"window \[70, 20\] is empty"),
            ({"low": 45, "high": 45}, "is empty"),
            ({"low": 80}, r"window \[80, 70\] is empty"),
            ({"high": 10}, r"window \[20, 10\] is empty"),
            ({"low": -181}, "'low' = -181"),
            ({"high": 181}, "'high' = 181"),
            ({"low": float("nan")}, "'low' = nan"),
            ({"threshold": float("nan")}, "'threshold' = nan"),
            ({"low": -90, "high": 90, "threshold": -0.1}, "180 degrees holds pairs and their rev"),
            ({"prompt": "image"}, "both axes are one scorer"),
            ({"max_pairs": 0}, "'max_pairs' = 0"),
        ],
    )
    def test_what_cannot_be_is_refused(self, options: dict[str, object], words: str) -> None:
        with pytest.raises(TastemakerError, match=words) as caught:
            RULES.validate("angle", {**AXES, **options})
        assert str(caught.value).count("option") == 1, "one mistake, one message"

    def test_it_is_refused_with_the_configuration(self) -> None:
        with pytest.raises(TastemakerError, match=r"rule: .*\[30, 20\] is empty"):
            section(
                PairConfig, None, ("rule={name: angle, fidelity: a, prompt: b, low: 30, high: 20}",)
            )

    @pytest.mark.parametrize("window", [(-180, 180), (0, 90), (-180, -90)])
    def test_wide_windows_are_allowed(self, window: tuple[int, int]) -> None:
        RULES.validate("angle", {**AXES, "low": window[0], "high": window[1]})


@pytest.fixture
def pool(tmp_path: Path) -> Pool:
    """Two prompts with three candidates each, and scores that an axis at a time tells apart."""
    from PIL import Image

    scores = {"image": [0.5, 0.8, 0.2, 0.9, 0.6, 0.5], "text": [0.2, 0.2, 0.23, 0.29, 0.2, 0.21]}
    picture = {"bytes": encode_png(Image.new("RGB", (8, 8))), "path": None}
    ids = [f"c{i}" for i in range(6)]
    rows = [
        {
            "candidate_id": each,
            "prompt_id": f"p{i // 3}",
            "prompt": f"prompt {i // 3}",
            "seed": i,
            "source": "generated",
            "source_id": None,
            "timestep": None,
            "model": "none",
            "image": picture,
        }
        for i, each in enumerate(ids)
    ]
    held = Pool(tmp_path / "pool")
    write_table(held.shard(0), candidate_table(rows))
    write_json(held.folder / "done.json", {"key": "pool"})
    for name, values in scores.items():
        table = pa.table({"candidate_id": ids, name: pa.array(values, pa.float32())})
        write_table(held.score_file(name, held.shard(0)), table)
        write_json(held.folder / "scores" / name / "done.json", {"key": name})
    return held


class TestRoom:
    def config(self, **options: object) -> PairConfig:
        return PairConfig.model_validate({"rule": {"name": "angle", **AXES, **options}})

    def test_groups_carry_the_deviations_of_the_whole_pool(self, pool: Pool) -> None:
        table = pool.scores()
        for only in (None, {"c0", "c1"}):
            for group in Groups(pool, only):
                for scorer in ("image", "text"):
                    expected = statistics.pstdev(table[scorer].to_pylist())
                    assert group.deviations[scorer] == pytest.approx(expected, rel=1e-12)

    def test_pairs_and_drops_are_written(
        self, pool: Pool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        folder = pair(self.config(low=0, high=45), pool.folder, tmp_path / "pairs")
        rows = PairSet(folder).table().to_pylist()
        assert [(row["chosen_id"], row["rejected_id"]) for row in rows] == [
            ("c3", "c5"),
            ("c3", "c4"),
        ]
        assert rows[0]["margin"] == pytest.approx((0.4**2 + 0.08**2) ** 0.5)
        said = capsys.readouterr().out
        # Per prompt 6 ordered pairs; two candidates of the first tie in text, none of the second.
        assert "7 dropped: ordered pairs with dTS <= 0" in said
        assert "3 dropped: ordered pairs outside [0, 45] degrees" in said

    def test_where_none_is_left_the_drops_are_counted(self, pool: Pool, tmp_path: Path) -> None:
        with pytest.raises(TastemakerError) as caught:
            pair(self.config(), pool.folder, tmp_path / "pairs")
        said = str(caught.value)
        assert "rule 'angle' left no pair of 2 prompts" in said
        assert "5 dropped: ordered pairs outside [20, 70] degrees" in said
        assert "loosen the rule" in said
        assert not (tmp_path / "pairs" / "pairs.parquet").exists()

    def test_a_score_that_is_missing_is_named(self, pool: Pool, tmp_path: Path) -> None:
        with pytest.raises(TastemakerError, match="Did you mean image"):
            pair(self.config(fidelity="imgae"), pool.folder, tmp_path / "pairs")
