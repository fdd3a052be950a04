"""Kernel distances against the formula, by hand and in numpy."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import Tensor

from tastemaker.core.errors import TastemakerError
from tastemaker.metrics.kernel_distance import kernel_distance


def normal(n: int, d: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, generator=generator, dtype=torch.float64)


def whole(a: Tensor, b: Tensor) -> float:
    return kernel_distance(a, b).value


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


def test_numbers_of_images_may_differ() -> None:
    a, b = torch.tensor([[0.0], [2.0], [1.0]]), torch.tensor([[1.0], [9.0]])
    within = (1 + 1 + 27) / 3  # k(0, 2), k(0, 1), k(2, 1)
    across = (1 + 1 + 27 + 19**3 + 8 + 1000) / 6
    assert whole(a, b) == pytest.approx(within + 1000 - 2 * across, rel=1e-12)


def test_images_of_a_prompt_are_not_paired() -> None:
    """Within and across sets, only images of different prompts: by hand, and as without copies."""
    a, b = torch.tensor([[0.0], [2.0]]), torch.tensor([[1.0], [9.0]])
    of = ["one", "two"]
    # k(0, 2) = 1; k(1, 9) = 1000; across k(0, 9) = 1 and k(2, 1) = 27.
    assert kernel_distance(a, b, of, of).value == pytest.approx(1 + 1000 - 28)
    wide = normal(20, 4, seed=12), 1 + normal(20, 4, seed=13)
    thrice = [i for i in range(20) for _ in range(3)]
    once = kernel_distance(*wide, range(20), range(20))
    copied = kernel_distance(wide[0][thrice], wide[1][thrice], thrice, thrice)
    assert copied == (pytest.approx(once.value), pytest.approx(once.stderr))


@pytest.mark.parametrize("matched", [False, True])
def test_standard_error_is_the_deviation_over_samples(matched: bool) -> None:
    """Prompts shift their three images together; 200 samples, within a quarter."""
    found = []
    for seed in range(200):
        shifts = normal(60, 4, seed), normal(60, 4, seed if matched else 5000 + seed)
        names = [[i for i in range(60) for _ in range(3)] for _ in range(2)]
        noises = normal(180, 4, 1000 + seed), normal(180, 4, 2000 + seed)
        a, b = (
            shift[name] + noise for shift, name, noise in zip(shifts, names, noises, strict=True)
        )
        if not matched:
            names[1] = [100 + i for i in names[1]]
        found.append(kernel_distance(a, b + 1, *names))
    deviation = np.std([each.value for each in found])
    assert np.mean([each.stderr for each in found]) == pytest.approx(deviation, rel=0.25)


@pytest.mark.parametrize(
    ("a", "b", "words"),
    [
        (torch.zeros(1, 2), torch.zeros(4, 2), "at least 2 images"),
        (torch.zeros(4, 2), torch.zeros(0, 2), "at least 2 images"),
        (torch.zeros(4), torch.zeros(4), r"shape \[4\]"),
        (torch.zeros(4, 2, 1), torch.zeros(4, 2), r"shape \[4, 2, 1\]"),
        (torch.zeros(4, 2), torch.zeros(4, 3), "width 2 and 3"),
        (torch.zeros(4, 2), torch.full((4, 2), math.nan), "NaN"),
        (torch.full((4, 2), math.inf), torch.zeros(4, 2), "NaN or infinity"),
    ],
)
def test_bad_features(a: Tensor, b: Tensor, words: str) -> None:
    with pytest.raises(TastemakerError, match=words):
        kernel_distance(a, b)


def test_one_prompt_alone() -> None:
    with pytest.raises(TastemakerError, match="of one prompt"):
        kernel_distance(normal(4, 2, 0), normal(4, 2, 1), ["a"] * 4, list("abcd"))
    few = kernel_distance(normal(4, 2, 0), normal(4, 2, 1), list("aabb"), list("aabb"))
    assert math.isnan(few.stderr)


def test_it_warns_of_nothing_and_needs_no_inception() -> None:
    code = """
import sys
for name in ("torch_fidelity", "torchvision"):
    sys.modules[name] = None
import torch
from tastemaker.metrics.kernel_distance import kernel_distance
print(kernel_distance(torch.zeros(2, 1), torch.ones(2, 1)).value)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert run.stdout.strip() == "7.0", run.stderr[-2000:]
    assert "memory footprint" not in run.stderr
