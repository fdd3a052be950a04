"""The Inception Score where it can be worked out by hand, and what may not enter it."""

from __future__ import annotations

import math

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from tastemaker.core.errors import TastemakerError
from tastemaker.metrics.inception_score import InceptionScore, inception_score


def pictures(*classes: int) -> list[Image.Image]:
    """One picture a class number, which is its level of red."""
    return [Image.new("RGB", (2, 2), (number, 0, 0)) for number in classes]


def table(*logits: list[float], scale: float = 1.0) -> nn.Module:
    """A classifier that answers a picture of class i with the i-th row."""

    class Table(nn.Module):
        def forward(self, pixels: Tensor) -> Tensor:
            numbers = (pixels[:, 0, 0, 0] * 255).round().long()
            return scale * torch.tensor(logits)[numbers]

    return Table()


def certain(classes: int, scale: float = 100.0) -> nn.Module:
    return table(*torch.eye(classes).tolist(), scale=scale)


@pytest.mark.parametrize("classes", [2, 5, 10])
@pytest.mark.parametrize("copies", [1, 4])
def test_sure_of_k_equal_classes_scores_k(classes: int, copies: int) -> None:
    score = inception_score(pictures(*range(classes)) * copies, certain(classes), splits=1)
    assert score == InceptionScore(pytest.approx(classes, rel=1e-9), 0.0, classes * copies)


@pytest.mark.parametrize("splits", [1, 3, 10])
def test_ignoring_the_image_scores_one(splits: int) -> None:
    blind = table(*[[0.3, -2.0, 5.0]] * 20)
    score = inception_score(pictures(*range(20)), blind, splits=splits)
    assert score.mean == pytest.approx(1, abs=1e-12)
    assert score.std == pytest.approx(0, abs=1e-12)


def test_unsure_answers_by_hand() -> None:
    # p(y|x) is (.9, .1) and (.1, .9), p(y) is (.5, .5): KL = .9 ln 1.8 + .1 ln .2 for both.
    logits = [[math.log(0.9), math.log(0.1)], [math.log(0.1), math.log(0.9)]]
    score = inception_score(pictures(0, 1), table(*logits), splits=1)
    expected = math.exp(0.9 * math.log(1.8) + 0.1 * math.log(0.2))
    assert score.mean == pytest.approx(expected, rel=1e-6)


def test_unequal_classes_by_hand() -> None:
    # Three of one class, one of another: exp of the entropy of (3/4, 1/4) = 4 / 3^(3/4).
    score = inception_score(pictures(0, 0, 0, 1), certain(2), splits=1)
    assert score.mean == pytest.approx(4 / 3**0.75, rel=1e-9)


def test_mean_and_deviation_over_the_splits_by_hand() -> None:
    # However it is shuffled, one half is {0, 0} and scores 1, the other {0, 1} and scores 2.
    score = inception_score(pictures(0, 0, 0, 1), certain(2), splits=2)
    assert score.mean == pytest.approx(1.5, rel=1e-9)
    assert score.std == pytest.approx(math.sqrt(0.5), rel=1e-9)


def test_every_split_is_there() -> None:
    # Five images in four splits: one of two images and three of one, which score 2, 1, 1, 1.
    score = inception_score(pictures(*range(5)), certain(5), splits=4)
    assert score.mean == pytest.approx(1.25, rel=1e-9)
    assert score.std == pytest.approx(0.5, rel=1e-9)


def test_sorted_images_are_shuffled() -> None:
    images = pictures(*sorted(list(range(8)) * 8))
    assert inception_score(images, certain(8), splits=8).mean > 3  # unshuffled: 1 in each split


@pytest.mark.parametrize("scale", [1e3, 1e6])
def test_probabilities_of_zero_are_no_nan(scale: float) -> None:
    # Class 2 is never seen, so that p(y = 2) would be 0 and its logarithm -inf.
    score = inception_score(pictures(0, 1), certain(3, scale), splits=1)
    assert score.mean == pytest.approx(2, rel=1e-9)


def test_the_seed_alone_decides() -> None:
    images, classifier = pictures(*range(6), *range(6), *range(6)), certain(6)
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = inception_score(images, classifier, splits=4, seed=3)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    for batch_size in (1, 5, 64):
        again = inception_score(iter(images), classifier, splits=4, batch_size=batch_size, seed=3)
        assert again == first
    others = {inception_score(images, classifier, splits=4, seed=seed).mean for seed in range(5)}
    assert len(others) > 1


def test_a_module_scores_in_evaluation_mode() -> None:
    torch.manual_seed(0)
    classifier = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(12), nn.Linear(12, 4), nn.Dropout(0.5))
    images = pictures(0, 40, 80, 120, 160, 200)
    one, two = (inception_score(images, classifier, splits=2, batch_size=size) for size in (1, 6))
    assert one.mean == pytest.approx(two.mean, rel=1e-6)
    assert one.mean > 1


@pytest.mark.parametrize("batch_size", [1, 64])
def test_images_of_two_sizes(batch_size: int) -> None:
    images = [*pictures(0, 1), Image.new("RGB", (3, 2))]
    with pytest.raises(TastemakerError, match="differ in size"):
        inception_score(images, certain(2), splits=1, batch_size=batch_size)


def test_bad_input() -> None:
    with pytest.raises(TastemakerError, match="no images"):
        inception_score([], certain(2))
    with pytest.raises(TastemakerError, match="9 images cannot be cut into 10 splits"):
        inception_score(pictures(*[0] * 9), certain(2))
    with pytest.raises(TastemakerError, match="splits is 0"):
        inception_score(pictures(0), certain(2), splits=0)
    with pytest.raises(TastemakerError, match="NaN"):
        inception_score(pictures(0, 1), table([1.0, math.nan], [0.0, 0.0]), splits=1)
    with pytest.raises(TastemakerError, match="one row an image"):
        inception_score(pictures(0, 1), lambda pixels: pixels, splits=1)
