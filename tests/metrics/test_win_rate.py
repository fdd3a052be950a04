"""Win rates and standard errors against hand-computed numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tastemaker.metrics.clusters import mean_and_stderr, two_sided_95
from tastemaker.metrics.win_rate import beat_ratio, win_matrix, win_rate

values = st.lists(st.integers(-3, 3).map(float), min_size=1, max_size=40)


def test_interval_by_hand() -> None:
    # Independent, 8 of 10: v = .8 * .2 / 9, so m = 9; t of 9 degrees is 2.2622, t^2 / m = .5686:
    # ((.8 + .2843) -+ sqrt(.5686 * .16 + .2843^2)) / 1.5686.
    rate = win_rate([1.0] * 8 + [0.0] * 2, [0.5] * 10)
    assert rate.value == 0.8
    assert rate.low == pytest.approx(0.4269, abs=1e-3)
    assert rate.high == pytest.approx(0.9556, abs=1e-3)


def test_images_of_a_prompt_that_agree_count_once() -> None:
    won = [1.0] * 8 + [0.0] * 2
    prompts = [i for i in range(10) for _ in range(4)]
    four = win_rate([won[i] for i in prompts], [0.5] * 40, prompts)
    assert four == win_rate(won, [0.5] * 10)
    narrow = win_rate([won[i] for i in prompts], [0.5] * 40)
    assert four.low < narrow.low < narrow.high < four.high


def test_all_won_and_all_lost_leave_room_by_the_number_of_prompts() -> None:
    # Wilson at w = 1: low = 1 / (1 + t^2 / m), m the clusters; t of 24 degrees is 2.0639.
    prompts = [i % 25 for i in range(250)]
    won = win_rate([1.0] * 250, [0.0] * 250, prompts)
    assert (won.value, won.high) == (1.0, 1.0)
    assert won.low == pytest.approx(1 / (1 + 2.0639**2 / 25), abs=1e-4)
    lost = win_rate([0.0] * 250, [1.0] * 250, prompts)
    assert (lost.low, lost.high) == (0.0, pytest.approx(1 - won.low))


def test_one_prompt_says_nothing_of_others() -> None:
    rate = win_rate([1.0, 1.0, 0.0], [0.0, 0.0, 1.0], ["a", "a", "a"])
    assert (rate.low, rate.high) == (0.0, 1.0)


DESIGNS = {"192 x 2": (192, 2), "25 x 10": (25, 10), "unequal": (40, None)}
EVALUATIONS = 1500


@pytest.mark.parametrize("correlation", [0.0, 0.4, 0.8])
@pytest.mark.parametrize("design", DESIGNS)
def test_interval_and_paired_error_cover_the_truth(design: str, correlation: float) -> None:
    """Of 1,500 evaluations 93 to 97% hold the true rate, and the true mean difference.

    A prompt's own rate is drawn from a beta distribution, whose images correlate as asked for. Two
    standard deviations of a share of .95 among 1,500 are allowed beyond 93 and 97%.
    """
    draw, rate = np.random.default_rng(7), 0.65
    groups, size = DESIGNS[design]
    sizes = [size or 1 + i % 6 for i in range(groups)]
    clusters = [i for i, number in enumerate(sizes) for _ in range(number)]
    zeros = [0.0] * len(clusters)
    rates = np.full((EVALUATIONS, groups), rate)
    if correlation:
        scale = (1 - correlation) / correlation
        rates = draw.beta(rate * scale, (1 - rate) * scale, (EVALUATIONS, groups))
    won = draw.random((EVALUATIONS, len(clusters))) < rates[:, clusters]
    held = matched = 0
    for gains in np.where(won, 1.0, -1.0).tolist():
        interval = win_rate(gains, zeros, clusters)
        held += interval.low <= rate <= interval.high
        mean, error = mean_and_stderr(gains, clusters)
        matched += abs(mean - (2 * rate - 1)) <= two_sided_95(groups - 1) * error
    allowance = 2 * (0.95 * 0.05 / EVALUATIONS) ** 0.5
    assert 0.93 - allowance < held / EVALUATIONS < 0.97 + allowance
    assert 0.93 - allowance < matched / EVALUATIONS < 0.97 + allowance


@given(values)
def test_a_model_against_itself_wins_half(scores: list[float]) -> None:
    rate = win_rate(scores, scores)
    assert rate.value == 0.5
    assert rate.low < 0.5 < rate.high
    assert rate.low == pytest.approx(1 - rate.high)


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
    mean, error = mean_and_stderr([7.0])
    assert mean == 7.0
    assert math.isnan(error)


def test_clustered_standard_error_by_hand() -> None:
    # 1, 3 | 5 | 7: mean 4, sums of residuals -4, 1, 3; 3/2 * 26 / 16.
    assert mean_and_stderr([1.0, 3.0, 5.0, 7.0], ["a", "a", "b", "c"]) == (
        4.0,
        pytest.approx((1.5 * 26 / 16) ** 0.5),
    )


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_score_that_is_not_finite_is_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="not finite"):
        win_rate([1.0, bad], [0.0, 0.0])
    with pytest.raises(ValueError, match="not finite"):
        win_matrix({"policy": [1.0, 2.0], "base": [bad, 0.0]})
    with pytest.raises(ValueError, match="not finite"):
        beat_ratio([1.0, bad], [0.0, 0.0])
    with pytest.raises(ValueError, match="finite"):
        mean_and_stderr([1.0, bad])


@pytest.mark.parametrize(
    ("degrees", "table"), [(1, 12.706), (2, 4.3027), (3, 3.1824), (5, 2.5706), (24, 2.0639)]
)
def test_quantiles_of_student(degrees: int, table: float) -> None:
    assert two_sided_95(degrees) == pytest.approx(table, rel=2e-3)


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
