"""Win rates and standard errors against hand-computed numbers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tastemaker.metrics.win_rate import beat_ratio, mean_and_stderr, win_matrix, win_rate

values = st.lists(st.integers(-3, 3).map(float), min_size=1, max_size=40)


def test_wilson_interval_by_hand() -> None:
    # 8 of 10: Wilson's interval is [0.4902, 0.9433] (published tables).
    rate = win_rate([1.0] * 8 + [0.0] * 2, [0.5] * 10)
    assert rate.value == 0.8
    assert rate.low == pytest.approx(0.4902, abs=1e-4)
    assert rate.high == pytest.approx(0.9433, abs=1e-4)


@given(values)
def test_a_model_against_itself_wins_half(scores: list[float]) -> None:
    rate = win_rate(scores, scores)
    assert rate.value == 0.5
    assert rate.low < 0.5 < rate.high


@given(values, st.data())
def test_sides_add_up_to_one(scores: list[float], data: st.DataObject) -> None:
    other = data.draw(st.permutations(scores))
    one, two = win_rate(scores, other), win_rate(other, scores)
    assert one.value + two.value == pytest.approx(1)
    assert one.low == pytest.approx(1 - two.high)
    assert 0 <= one.low <= one.value <= one.high <= 1


def test_unequal_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="cannot be compared"):
        win_rate([1.0], [])
    with pytest.raises(ValueError, match="cannot be compared"):
        beat_ratio([1.0, 2.0], [1.0])
    with pytest.raises(ValueError, match="cannot be compared"):
        beat_ratio([], [])


def test_beat_ratio_by_hand() -> None:
    # Won 3 times, tied twice, lost 3 times: 3 of 8 are beaten, while a win rate says 4 of 8.
    policy, base = [2.0, 2.0, 2.0, 1.0, 1.0, 0.0, 0.0, 0.0], [1.0] * 8
    assert beat_ratio(policy, base) == 0.375
    assert win_rate(policy, base).value == 0.5
    assert beat_ratio(policy, policy) == 0.0


@given(values, st.data())
def test_beats_of_both_sides_and_ties_add_up_to_one(
    scores: list[float], data: st.DataObject
) -> None:
    other = data.draw(st.permutations(scores))
    ties = sum(p == b for p, b in zip(scores, other, strict=True)) / len(scores)
    won, lost = beat_ratio(scores, other), beat_ratio(other, scores)
    assert won + lost + ties == pytest.approx(1)
    assert won == pytest.approx(win_rate(scores, other).value - ties / 2)


def test_standard_error_by_hand() -> None:
    # 1, 2, 3, 4: variance 5/3, standard error sqrt(5/12).
    assert mean_and_stderr([1.0, 2.0, 3.0, 4.0]) == (2.5, pytest.approx((5 / 12) ** 0.5))
    assert mean_and_stderr([7.0]) == (7.0, 0.0)


def test_every_model_meets_every_other() -> None:
    scores = {
        "dpo": [1.0, 2.0, 3.0, 4.0],
        "sft": [0.0, 3.0, 3.0, 0.0],
        "base": [0.0, 0.0, 0.0, 9.0],
    }
    matrix = win_matrix(scores)
    values = {
        model: {baseline: rate.value for baseline, rate in row.items()}
        for model, row in matrix.items()
    }
    # Won, lost, tied, won; won, won, won, lost; tied, won, won, lost.
    assert values == {
        "dpo": {"sft": 0.625, "base": 0.75},
        "sft": {"dpo": 0.375, "base": 0.625},
        "base": {"dpo": 0.25, "sft": 0.375},
    }
    assert matrix["dpo"]["base"] == win_rate(scores["dpo"], scores["base"])
    assert list(matrix) == list(scores)


def test_a_matrix_of_what_cannot_be_compared() -> None:
    with pytest.raises(ValueError, match="two models or more"):
        win_matrix({"base": [1.0]})
    with pytest.raises(ValueError, match=r"numbers differ: .'policy': 2, 'base': 1."):
        win_matrix({"policy": [1.0, 2.0], "base": [1.0]})
    with pytest.raises(ValueError, match="cannot be compared"):
        win_matrix({"policy": [], "base": []})
