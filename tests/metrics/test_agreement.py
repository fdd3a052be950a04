"""Krippendorff's alpha against the figures of its author's own worked examples."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tastemaker.metrics.agreement import krippendorff_alpha

# Krippendorff (2011), Computing Krippendorff's alpha-reliability, parts C and D: four observers,
# twelve units, some not judged (0 here); the twelfth has one value alone and does not count.
OBSERVERS = (
    (1, 2, 3, 3, 2, 1, 4, 1, 2, 0, 0, 0),
    (1, 2, 3, 3, 2, 2, 4, 1, 2, 5, 0, 3),
    (0, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, 0),
    (1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, 0),
)
UNITS = [[value for value in unit if value] for unit in zip(*OBSERVERS, strict=True)]

# Part A: two observers, ten units, two values.
BINARY = list(zip((0, 1, 0, 0, 0, 0, 0, 0, 1, 0), (1, 1, 1, 0, 0, 1, 0, 0, 0, 0), strict=True))


def test_published_figures() -> None:
    nominal = krippendorff_alpha(UNITS, range(1, 6))
    assert nominal.value == pytest.approx(0.743, abs=5e-4)
    assert (nominal.units, nominal.values) == (11, 40)
    assert krippendorff_alpha(UNITS, range(1, 6), "ordinal").value == pytest.approx(0.815, abs=5e-4)
    assert krippendorff_alpha(BINARY, (0, 1)).value == pytest.approx(0.095, abs=5e-4)


def test_binary_by_hand() -> None:
    # Of ten units four disagree: o_01 = o_10 = 4; n_0 = 14, n_1 = 6, n = 20.
    # 1 - (8 / 20) / (2 * 14 * 6 / (20 * 19)) = 1 - 0.4 / 0.44211 = 0.09524.
    assert krippendorff_alpha(BINARY, (0, 1)).value == pytest.approx(1 - 0.4 / (168 / 380))
    # With two values alone every level is the same.
    ordinal = krippendorff_alpha(BINARY, (0, 1), "ordinal").value
    assert ordinal == pytest.approx(1 - 0.4 / (168 / 380))


def test_ordinal_by_hand() -> None:
    # (1, 2), (3, 3): n = 1, 1, 2 of 4; ranks of the middles .5, 1.5, 3. Distances squared: 1 (1-2),
    # 6.25 (1-3), 2.25 (2-3). D_o = 2 * 1 / 4; D_e = 2 * (1 + 2 * 6.25 + 2 * 2.25) / 12 = 3.
    assert krippendorff_alpha([(1, 2), (3, 3)], (1, 2, 3), "ordinal").value == pytest.approx(5 / 6)


def test_perfect_opposite_and_undefined() -> None:
    perfect = krippendorff_alpha([(0, 0), (1, 1), (0, 0)], (0, 1))
    assert perfect.value == 1
    assert krippendorff_alpha([(0, 1)] * 5, (0, 1)).value < 0
    assert math.isnan(krippendorff_alpha([(1, 1), (1, 1)], (0, 1)).value)
    assert math.isnan(krippendorff_alpha([(1,), (0,)], (0, 1)).value)
    with pytest.raises(ValueError, match="2 is not one of the values"):
        krippendorff_alpha([(0, 2)], (0, 1))


def test_interval_resamples_clusters() -> None:
    draw = np.random.default_rng(0)
    truth = draw.integers(0, 2, 400)
    units = [[int(t ^ (draw.random() < 0.2)) for _ in range(3)] for t in truth]
    single = krippendorff_alpha(units, (0, 1))
    assert single.low < single.value < single.high
    # Two voters err independently in a fifth of the units: agreement beyond chance (1 - 2 * .2)^2.
    assert single.low < 0.36 < single.high
    fewer = krippendorff_alpha(units, (0, 1), clusters=[i // 100 for i in range(400)])
    assert fewer.value == single.value
    # Each unit four times, as its own cluster, looks like more; as one cluster it is what it was.
    four = krippendorff_alpha(units * 4, (0, 1), clusters=[*range(400)] * 4)
    assert four.high - four.low == pytest.approx(single.high - single.low, rel=0.1)
    naive = krippendorff_alpha(units * 4, (0, 1))
    assert naive.high - naive.low < 0.7 * (four.high - four.low)
    assert krippendorff_alpha(units, (0, 1)) == single  # the same draws every time
