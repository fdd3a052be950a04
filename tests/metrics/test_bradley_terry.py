"""Strengths against numbers worked out by hand, and intervals against simulated votes."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tastemaker.metrics.bradley_terry import BradleyTerry, Comparison, compared, expit, strengths
from tastemaker.metrics.clusters import mean_interval, two_sided_95, two_sided_p
from tastemaker.metrics.two_way import TwoWay, mean_of_votes, share_of_votes
from tastemaker.metrics.win_rate import win_rate

tables = st.integers(2, 5).flatmap(
    lambda n: st.lists(
        st.lists(st.integers(0, 9), min_size=n, max_size=n), min_size=n, max_size=n
    ).map(lambda rows: np.array(rows, dtype=float) * (1 - np.eye(n)))
)


def votes(first: str, second: str, won: int, of: int, ties: int = 0) -> list[Comparison]:
    scores = [1.0] * won + [0.5] * ties + [0.0] * (of - won - ties)
    return [Comparison(first, second, s, f"{first}{second}{i}", "v") for i, s in enumerate(scores)]


def test_two_have_the_log_odds_of_the_win_rate_with_ties_half() -> None:
    fit = BradleyTerry(("a", "b"), tuple(votes("a", "b", 400, 800, ties=200)))
    # (400 + 100) of 800: log(500 / 300) = 0.5108; the ridge takes 0.25 of 2 * 800 * .2344 + .25.
    assert fit.difference("a", "b").value == pytest.approx(math.log(5 / 3), abs=5e-4)
    assert fit.strengths.tolist() == pytest.approx(
        [math.log(5 / 3) / 2, -math.log(5 / 3) / 2], abs=5e-4
    )


def test_three_that_fit_the_model_are_recovered() -> None:
    # Odds 1:2:4, so 2/3 and 4/5 of the comparisons are won: 600 of each pair, exactly as expected.
    wins = np.array([[0, 200, 120], [400, 0, 200], [480, 400, 0]], dtype=float)
    found = strengths(wins, ridge=1e-9)
    assert found == pytest.approx(np.array([-1, 0, 1]) * math.log(2), abs=1e-8)


def test_a_stationary_point_by_hand() -> None:
    # One comparison, won: 1 - 1 / (1 + exp(-d)) = ridge * d / 2, at 0.25: d = 1.4815.
    found = strengths(np.array([[0.0, 1.0], [0.0, 0.0]]))
    d = found[0] - found[1]
    assert d == pytest.approx(1.4815, abs=1e-3)
    assert 1 - expit(d) == pytest.approx(0.25 * d / 2, abs=1e-9)


@given(tables)
def test_the_gradient_vanishes_and_strengths_are_finite(wins: np.ndarray) -> None:
    found = strengths(wins)
    rates = expit(found[:, None] - found[None])
    gradient = (wins - (wins + wins.T) * rates).sum(1) - 0.25 * found
    assert np.abs(gradient).max() < 1e-6
    assert abs(found.mean()) < 1e-9


@given(tables, st.randoms())
def test_order_does_not_matter(wins: np.ndarray, random: object) -> None:
    order = list(range(len(wins)))
    random.shuffle(order)  # type: ignore[attr-defined]
    assert strengths(wins)[order] == pytest.approx(strengths(wins[np.ix_(order, order)]), abs=1e-7)
    assert strengths(wins.T) == pytest.approx(-strengths(wins), abs=1e-7)


def test_more_votes_for_one_raise_it() -> None:
    found = [strengths(np.array([[0.0, n], [0.0, 0.0]]))[0] for n in range(6)]
    assert found == sorted(found)
    assert len(set(found)) == 6


def test_one_that_always_won_has_a_wide_interval_above_0() -> None:
    difference = BradleyTerry(("a", "b"), tuple(votes("a", "b", 20, 20))).difference("a", "b")
    assert 2 < difference.value < 5
    assert 0 < difference.low < difference.high < 10
    assert difference.p < 0.05


def test_ties_alone_are_no_difference() -> None:
    found = compared(
        "xyz", [Comparison("x", "y", 0.5, "p", "v"), Comparison("y", "z", 0.5, "p", "w")]
    )
    assert found == {"x": 0.0, "y": 0.0, "z": 0.0}
    assert compared("xyz", [Comparison("x", "y", 1.0, "p", "v")]).keys() == {"x", "y"}
    assert compared("xyz", []) == {}


def test_names_that_nothing_links_are_named() -> None:
    pairs = [*votes("a", "b", 3, 4), *votes("c", "d", 3, 4)]
    fit = BradleyTerry(("a", "b", "c", "d"), tuple(pairs))
    assert fit.unlinked() == ("c", "d")
    linked = BradleyTerry(("a", "b", "c", "d"), (*pairs, Comparison("b", "c", 0.5, "p", "v")))
    assert linked.unlinked() == ()
    assert fit.difference("a", "c").high - fit.difference("a", "c").low > 6


def test_win_rates_are_counted() -> None:
    fit = BradleyTerry(("a", "b", "c"), (*votes("a", "b", 6, 10, ties=2), *votes("c", "b", 1, 4)))
    rates = fit.win_rates()
    assert rates["a"]["b"].value == pytest.approx(0.7)  # type: ignore[union-attr]
    assert rates["b"]["a"].value == pytest.approx(0.3)  # type: ignore[union-attr]
    assert rates["b"]["c"].value == pytest.approx(0.75)  # type: ignore[union-attr]
    assert rates["a"]["c"] is rates["c"]["a"] is None
    low, high = rates["a"]["b"].low, rates["a"]["b"].high  # type: ignore[union-attr]
    assert (1 - high, 1 - low) == pytest.approx((rates["b"]["a"].low, rates["b"]["a"].high))  # type: ignore[union-attr]


class TestTwoWay:
    def test_one_voter_leaves_the_clusters_of_prompts(self) -> None:
        values, prompts = [1.0, 0.0, 0.0, 1.0, 1.0, 0.5], ["a", "a", "b", "c", "c", "d"]
        found = mean_of_votes(values, prompts, ["ann"] * 6)
        clustered, independent = mean_interval(values, prompts), mean_interval(values)
        assert found.mean == pytest.approx(clustered.mean)
        # Of the two the one whose interval is wider: 3 degrees, .19902, over 5 degrees, .20069.
        assert found.stderr == pytest.approx(clustered.stderr)
        assert found.high - found.low == pytest.approx(clustered.high - clustered.low)
        assert clustered.high > independent.high
        assert mean_of_votes(values, ["a"] * 6, prompts) == found

    def test_by_hand(self) -> None:
        # Two prompts x two voters; deviations from the mean .5: +.5 +.5 / -.5 +.5 ... of 4 votes.
        values, prompts, voters = [1.0, 1.0, 0.0, 0.0], [0, 0, 1, 1], [0, 1, 0, 1]
        # Prompts: sums of deviations / 4 = .25, -.25: 2/1 * (.0625 * 2) = .25. Voters: 0, 0: 0.
        # Both: four of .125: 4/3 * 4 * .015625 = .08333. V = .25 + 0 - .08333 = .16667.
        contributions = ((np.array(values) - 0.5) / 4)[:, None]
        error = TwoWay(contributions, prompts, voters).along(np.ones(1))
        assert error.variance == pytest.approx(1 / 6)
        # Satterthwaite: (1/6)^2 / (.25^2 / 1 + 0 / 1 + .08333^2 / 3) = .0278 / .0648: one degree.
        assert error.degrees == 1

    def test_share_of_one_voter_is_the_win_rate(self) -> None:
        points = [1.0, 1.0, 0.5, 0.0, 1.0, 1.0, 0.0, 1.0]
        prompts = list("aabbccdd")
        found, clustered = (
            share_of_votes(points, prompts, ["v"] * 8),
            win_rate(points, [0.5] * 8, prompts),
        )
        independent = win_rate(points, [0.5] * 8)
        assert found.value == clustered.value == 0.6875
        widest = min(clustered.low, independent.low)
        assert found.low == pytest.approx(widest, abs=1e-9)

    def test_all_won_counts_prompts_or_voters(self) -> None:
        won = share_of_votes([1.0] * 12, [i // 2 for i in range(12)], ["v"] * 12)
        assert won == win_rate([1.0] * 12, [0.0] * 12, [i // 2 for i in range(12)])
        two = share_of_votes([1.0] * 12, list(range(12)), [i % 3 for i in range(12)])
        assert two.low == pytest.approx(1 / (1 + two_sided_95(2) ** 2 / 3))


def test_p_and_interval_agree() -> None:
    for degrees in (1, 2, 3, 7, 30, 400):
        assert two_sided_p(two_sided_95(degrees), degrees) == pytest.approx(0.05, abs=2e-4)
    assert two_sided_p(0.0, 5) == 1
    assert two_sided_p(1e9, 5) < 1e-12
    assert two_sided_p(2.5706, 5) == pytest.approx(0.05, abs=1e-5)  # the tables' t of 5 degrees


STUDIES = 1000
TIE = 0.3

FEW = "five voters of one taste"

DESIGNS = {
    # models, prompts, voters, votes, deviation of prompts' and of voters' own taste
    "one voter": (3, 150, 1, 300, 0.0, 0.0),
    "prompts differ": (2, 60, 5, 300, 0.9, 0.0),
    "prompts and voters differ": (4, 60, 15, 450, 0.7, 0.5),
    "eight voters differ": (3, 40, 8, 300, 0.6, 0.6),
    FEW: (2, 100, 5, 200, 0.0, 0.0),
}


@pytest.mark.parametrize("design", DESIGNS)
def test_intervals_cover_the_true_differences(design: str) -> None:
    """Of 1,000 studies 93 to 97% of the intervals hold the true difference of two models.

    A model's image pleases by its strength, its luck with the prompt and the voter's liking for
    the model; a voter sees the difference with logistic noise, and a tie where it is below 0.3. The
    truth is the strength that infinitely many prompts and voters would give.
    """
    models, prompts, voters, number, of_prompts, of_voters = DESIGNS[design]
    draw = np.random.default_rng(7)
    theta = np.linspace(0.8, 0, models)
    pairs = list(itertools.combinations(range(models), 2))
    truth = true_strengths(theta, of_prompts, of_voters)
    names = tuple(map(str, range(models)))
    held = total = 0
    for _ in range(STUDIES):
        liked = draw.normal(0, of_prompts, (prompts, models))
        taste = draw.normal(0, of_voters, (voters, models))
        chosen = draw.choice(prompts * voters * len(pairs), number, replace=False)
        prompt, rest = np.divmod(chosen, voters * len(pairs))
        voter, pair = np.divmod(rest, len(pairs))
        first, second = np.array(pairs)[pair].T
        utility = theta + liked[prompt] + taste[voter]
        votes = np.arange(number)
        seen = utility[votes, first] - utility[votes, second] + draw.logistic(size=number)
        score = np.where(np.abs(seen) < TIE, 0.5, seen > 0)
        fit = BradleyTerry(
            names,
            tuple(
                Comparison(str(f), str(s), float(x), int(p), int(v))
                for f, s, x, p, v in zip(first, second, score, prompt, voter, strict=True)
            ),
        )
        for i, j in pairs:
            found = fit.difference(str(i), str(j))
            held += found.low <= truth[i] - truth[j] <= found.high
            total += 1
    most = 1.0 if design == FEW else 0.97  # five might have differed: the interval allows for it
    assert 0.93 <= held / total <= most, f"{design}: {held / total}"


def true_strengths(theta: np.ndarray, of_prompts: float, of_voters: float) -> np.ndarray:
    """Strengths of the expected win rates, by Gauss and Hermite over prompts and voters."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    spread = math.sqrt(2 * (of_prompts**2 + of_voters**2))
    apart = (theta[:, None] - theta[None])[..., None] + spread * nodes
    scores = (expit(apart - TIE) + expit(apart + TIE)) / 2
    rates = (scores * weights).sum(-1) / weights.sum()
    return strengths(1e6 * rates * (1 - np.eye(len(theta))))
