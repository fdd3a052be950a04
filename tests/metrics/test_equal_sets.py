"""Which images a distance compares: equal numbers, equal captions, no real image on both sides."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tastemaker.core.errors import TastemakerError
from tastemaker.metrics.equal_sets import equal_sets
from tastemaker.metrics.named import Captions, Features, frechet, kernel
from tastemaker.metrics.networks import INCEPTION_LABEL

captions = st.lists(st.sampled_from("abcdef"), min_size=2, max_size=40)


@given(captions, captions)
def test_numbers_are_equal_and_halves_disjoint(drawn: list[str], real: list[str]) -> None:
    sets = equal_sets(drawn, real)
    assert len(sets.drawn) == len(sets.real) == len(sets.others)
    assert not set(sets.real) & set(sets.others)
    assert all(len(set(rows)) == len(rows) for rows in sets[:3])
    if sets.matched:
        known = Counter(drawn[row] for row in sets.drawn)
        assert known == Counter(real[row] for row in sets.real)


def test_a_common_caption_does_not_weigh_more_on_one_side() -> None:
    # Of 12 real images 8 have one caption; each model drew every caption twice.
    real, drawn = ["a"] * 8 + ["b", "b", "c", "c"], ["a", "a", "b", "b", "c", "c"]
    sets = equal_sets(drawn, real)
    assert sets.matched
    assert Counter(real[row] for row in sets.real) == {"a": 2, "b": 1, "c": 1}


def test_captions_that_are_not_known_are_taken_by_chance() -> None:
    sets = equal_sets([f"prompt {i}" for i in range(7)], [f"caption {i}" for i in range(10)])
    assert not sets.matched
    assert len(sets.drawn) == 5


def normal(n: int, d: int, seed: int) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_equal_laws_are_as_far_as_the_halves_of_the_real_images() -> None:
    """At unequal numbers the real images' halves would lie twice as far apart as they do here."""
    drawn, real = [f"p{i}" for i in range(400)], [f"r{i}" for i in range(200)]
    ratios = []
    for seed in range(20):
        captions = Captions(drawn, real, seed)
        both = Features(normal(400, 8, seed), normal(200, 8, 100 + seed), captions, "clip")
        near, far = frechet(both)["clip"], kernel(both)["clip"]
        ratios.append(near["value"] / near["real_to_real"])
        assert abs(far["value"]) < 4 * far["stderr"]
        assert (near["images"], far["images"]) == (100, 200)
    assert 0.85 < sum(ratios) / 20 < 1.15


@pytest.mark.parametrize(("images", "name"), [(4096, "FID"), (4094, "Frechet distance")])
def test_only_enough_images_by_inception_are_called_fid(images: int, name: str) -> None:
    captions = Captions([str(i) for i in range(images)], [str(i) for i in range(images)], 0)
    a, b = normal(images, 2, 0), normal(images, 2, 1)
    for label, expected in ((INCEPTION_LABEL, name), ("clip", "Frechet distance")):
        assert frechet(Features(a, b, captions, label))[label]["name"] == expected


def test_too_few_real_images_are_refused() -> None:
    captions = Captions(["a", "b", "c"], ["d", "e", "f"], 0)
    with pytest.raises(TastemakerError, match="3 real images are too few"):
        frechet(Features(normal(3, 2, 0), normal(3, 2, 1), captions, "clip"))
