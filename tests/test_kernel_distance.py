"""Kernel distances against the formula, by hand and in numpy."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import Tensor

from tastemaker.errors import TastemakerError
from tastemaker.metrics.kernel_distance import KernelDistance, kernel_distance


def normal(n: int, d: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, generator=generator, dtype=torch.float64)


def whole(a: Tensor, b: Tensor) -> float:
    """The distance of sets of equal number, all of them in one subset."""
    return kernel_distance(a, b, subsets=1, subset_size=len(a)).mean


def by_formula(a: Tensor, b: Tensor) -> float:
    x, y = a.double().numpy(), b.double().numpy()
    m, d = x.shape

    def kernel(left: np.ndarray, right: np.ndarray) -> np.ndarray:
        return (left @ right.T / d + 1) ** 3

    others = ~np.eye(m, dtype=bool)
    within = kernel(x, x)[others].mean() + kernel(y, y)[others].mean()
    return float(within - 2 * kernel(x, y).mean())


def test_one_dimension_by_hand() -> None:
    # k(0, 2) = 1 twice; k(1, 9) = 10^3 twice; across 1, 1, 3^3 and 19^3.
    a, b = torch.tensor([[0.0], [2.0]]), torch.tensor([[1.0], [9.0]])
    assert whole(a, b) == pytest.approx(1 + 1000 - (1 + 1 + 27 + 6859) / 2, rel=1e-12)


def test_two_dimensions_by_hand() -> None:
    # Products over d = 2: within a 0, within b 3 / 2; across 1 / 2, 3 / 2, 1 and 0.
    a, b = torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([[1.0, 0.75], [2.0, 0.0]])
    across = [(product / 2 + 1) ** 3 for product in (1, 2, 1.5, 0)]
    assert whole(a, b) == pytest.approx(1 + 2**3 - 2 * sum(across) / 4, rel=1e-12)


@pytest.mark.parametrize(("n", "d"), [(2, 1), (7, 3), (40, 16)])
def test_it_is_the_formula(n: int, d: int) -> None:
    a, b = normal(n, d, seed=1), 0.5 + 2 * normal(n, d, seed=2)
    assert whole(a, b) == pytest.approx(by_formula(a, b), rel=1e-9)
    assert whole(a.float(), b) == pytest.approx(by_formula(a.float(), b), rel=1e-9)


def test_a_set_is_at_about_no_distance_from_itself() -> None:
    # Without bias, a set against itself is below 0: its diagonal is left out on two sides of three.
    a = normal(50, 8, seed=3)
    assert whole(a, a) == pytest.approx(by_formula(a, a), rel=1e-9)
    assert -1 < whole(a, a) < 0
    assert abs(whole(normal(2000, 8, seed=4), normal(2000, 8, seed=5))) < 0.01


def test_it_has_no_bias() -> None:
    """The mean over small samples of one law is 0, where the Frechet distance's is far from it."""
    values = [whole(normal(10, 4, seed), normal(10, 4, 1000 + seed)) for seed in range(300)]
    assert abs(np.mean(values)) < 4 * np.std(values) / math.sqrt(len(values))


def test_further_sets_are_further() -> None:
    a, b = normal(100, 4, seed=6), normal(100, 4, seed=7)
    values = [whole(a, b + shift) for shift in (0.0, 0.5, 1.0, 2.0)]
    assert values == sorted(values)


def test_sides_and_rows_may_be_swapped() -> None:
    a, b = normal(30, 4, seed=8), 2 + normal(30, 4, seed=9)
    assert whole(a, b) == pytest.approx(whole(b, a), rel=1e-9)
    assert whole(a.flip(0), b) == pytest.approx(whole(a, b), rel=1e-9)


def test_subsets_are_drawn_by_their_seed_alone() -> None:
    a, b = normal(60, 4, seed=10), 1 + normal(40, 4, seed=11)

    def measure(seed: int) -> KernelDistance:
        return kernel_distance(a, b, subsets=5, subset_size=20, seed=seed)

    torch.manual_seed(1)
    first, state = measure(0), torch.get_rng_state()
    torch.manual_seed(2)
    assert measure(0) == first
    assert measure(1) != first
    torch.manual_seed(1)
    assert torch.equal(torch.get_rng_state(), state)  # the global generator was left alone
    assert first.std > 0


def test_the_mean_over_subsets_nears_the_whole() -> None:
    a, b = normal(60, 4, seed=12), 1 + normal(60, 4, seed=13)
    parts = kernel_distance(a, b, subsets=400, subset_size=20)
    assert parts.mean == pytest.approx(whole(a, b), abs=4 * parts.std / math.sqrt(400))
    assert kernel_distance(a, b, subsets=3, subset_size=60).std == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(
    ("a", "b", "words"),
    [
        (torch.zeros(3, 2), torch.zeros(4, 2), "3 images has no subset of 4"),
        (torch.zeros(4, 2), torch.zeros(0, 2), "0 images has no subset of 4"),
        (torch.zeros(4), torch.zeros(4), r"shape \[4\]"),
        (torch.zeros(4, 2, 1), torch.zeros(4, 2), r"shape \[4, 2, 1\]"),
        (torch.zeros(4, 2), torch.zeros(4, 3), "width 2 and 3"),
        (torch.zeros(4, 2), torch.full((4, 2), math.nan), "NaN"),
        (torch.full((4, 2), math.inf), torch.zeros(4, 2), "NaN or infinity"),
    ],
)
def test_bad_features(a: Tensor, b: Tensor, words: str) -> None:
    with pytest.raises(TastemakerError, match=words):
        kernel_distance(a, b, subset_size=4)


@pytest.mark.parametrize(("subsets", "subset_size"), [(0, 2), (1, 1), (-1, 4)])
def test_bad_numbers(subsets: int, subset_size: int) -> None:
    with pytest.raises(TastemakerError, match="at least 1 and 2"):
        kernel_distance(
            torch.zeros(4, 2), torch.ones(4, 2), subsets=subsets, subset_size=subset_size
        )


def test_it_warns_of_nothing_and_needs_no_inception() -> None:
    code = """
import sys
for name in ("torch_fidelity", "torchvision"):
    sys.modules[name] = None
import torch
from tastemaker.metrics.kernel_distance import kernel_distance
print(kernel_distance(torch.zeros(2, 1), torch.ones(2, 1), subsets=1, subset_size=2).mean)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert run.stdout.strip() == "7.0", run.stderr[-2000:]
    assert "memory footprint" not in run.stderr
