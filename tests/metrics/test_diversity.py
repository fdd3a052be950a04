"""Diversity within a prompt, and its paired change, by hand."""

from __future__ import annotations

import math

import pytest
import torch

from tastemaker.core.errors import TastemakerError
from tastemaker.metrics.clusters import relative_difference
from tastemaker.metrics.diversity import pairwise_distances
from tastemaker.metrics.named import Paired, diversity

PROMPTS = ["a", "a", "a", "b", "b"]


def test_distances_by_hand() -> None:
    # Of a: cosines 0, -1, 0, so that 1, 2, 1 are averaged; of b: parallel, whatever the length.
    rows = [[1.0, 0.0], [0.0, 3.0], [-2.0, 0.0], [1.0, 1.0], [5.0, 5.0]]
    assert pairwise_distances(torch.tensor(rows), PROMPTS) == pytest.approx([4 / 3, 0.0])


def test_order_of_images_does_not_matter() -> None:
    rows = torch.randn(5, 7, generator=torch.Generator().manual_seed(0))
    expected = pairwise_distances(rows, PROMPTS)
    order = [3, 0, 2, 4, 1]
    b, a = pairwise_distances(rows[order], [PROMPTS[i] for i in order])
    assert [a, b] == pytest.approx(expected)


def test_one_image_of_a_prompt_has_no_distance() -> None:
    with pytest.raises(TastemakerError, match="two images or more of each prompt"):
        pairwise_distances(torch.ones(3, 2), ["a", "a", "b"])


def test_relative_difference_by_hand() -> None:
    # Ratio 4/8: residuals of (v - b/2) / 4 are 1/4 and -1/4, so that the error is 1/4.
    found = relative_difference([2.0, 2.0], [2.0, 6.0])
    assert (found.mean, found.stderr) == pytest.approx((-0.5, 0.25))
    assert found.high == pytest.approx(-0.5 + 12.706 * 0.25, rel=1e-4)


def test_half_of_everywhere_is_half_for_sure() -> None:
    found = relative_difference([1.0, 2.0, 4.0], [2.0, 4.0, 8.0])
    assert tuple(found) == pytest.approx((-0.5, 0.0, -0.5, -0.5))


def test_entry_of_policy_and_base() -> None:
    square = torch.tensor([[1.0, 0.0], [0.0, 1.0]] * 2)
    same = torch.ones(4, 2)
    prompts = ["a", "a", "b", "b"]
    entry = diversity(Paired(same, square, prompts, "eyes"))["eyes"]
    assert (entry["value"], entry["relative_difference"]) == pytest.approx((0.0, -1.0))
    assert diversity(Paired(square, None, prompts, "eyes")) == {
        "eyes": {"name": "diversity", "value": 1.0, "stderr": 0.0, "images": 4}
    }
    assert "relative_difference" not in diversity(Paired(square, same, prompts, "eyes"))["eyes"]


def test_one_prompt_has_no_error() -> None:
    half = torch.tensor([[1.0, 0.0], [1.0, math.sqrt(3)]])
    entry = diversity(Paired(half, half, ["a", "a"], "eyes"))["eyes"]
    assert entry["value"] == pytest.approx(0.5)
    assert (entry["stderr"], entry["relative_low"], entry["relative_high"]) == (None, None, None)
