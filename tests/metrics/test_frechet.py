"""Frechet distances against closed forms, and features that know nothing of batches."""

from __future__ import annotations

import math
import statistics
import subprocess
import sys

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from tastemaker.core.errors import TastemakerError
from tastemaker.metrics.frechet import (
    frechet_distance,
    frechet_images,
    frechet_stderr,
    image_features,
)


def normal(n: int, d: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, generator=generator, dtype=torch.float64)


def grey(value: int, size: int = 4) -> Image.Image:
    return Image.new("RGB", (size, size), (value, value, value))


def mean_colour(pixels: Tensor) -> Tensor:
    return pixels.mean((2, 3))


def test_one_dimension_by_hand() -> None:
    # Means 1 and 5, variances 2 and 32: (1 - 5)^2 + (sqrt(2) - sqrt(32))^2 = 16 + 18.
    a, b = torch.tensor([[0.0], [2.0]]), torch.tensor([[1.0], [9.0]])
    assert frechet_distance(a, b) == pytest.approx(34, rel=1e-12)


def test_two_dimensions_by_hand() -> None:
    # Covariances diag(2/3, 8/3) and diag(6, 2/3) about one mean: (sqrt(6) - sqrt(2/3))^2 in the
    # first axis, which is 8/3, and (sqrt(8/3) - sqrt(2/3))^2 = 2/3 in the second.
    a = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 2.0], [0.0, -2.0]])
    b = torch.tensor([[3.0, 0.0], [-3.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    assert frechet_distance(a, b) == pytest.approx(8 / 3 + 2 / 3, rel=1e-12)


def test_a_shift_costs_its_square() -> None:
    a = normal(50, 3, seed=1)
    shift = torch.tensor([1.0, -2.0, 3.0])
    assert frechet_distance(a, a + shift) == pytest.approx(14, rel=1e-9)


def test_a_stretch_costs_its_variance() -> None:
    # S_b = 9 S_a about the mean: Tr(S_a) (1 + 9 - 2 * 3) = 4 Tr(S_a).
    a = normal(50, 3, seed=2)
    mean = a.mean(0)
    expected = 4 * a.var(0).sum().item()
    assert frechet_distance(a, mean + 3 * (a - mean)) == pytest.approx(expected, rel=1e-9)


def test_covariances_that_do_not_commute() -> None:
    """Against `Tr((S_a^1/2 S_b S_a^1/2)^1/2)` by symmetric roots, and the sampled Gaussians'."""
    root_a = torch.tensor([[2.0, 0.0], [0.0, 0.5]], dtype=torch.float64)
    root_b = torch.tensor([[1.0, 0.8], [0.8, 1.5]], dtype=torch.float64)
    a, b = normal(40_000, 2, seed=3) @ root_a, 1 + normal(40_000, 2, seed=4) @ root_b

    def distance(gap: Tensor, s_a: Tensor, s_b: Tensor) -> float:
        values, vectors = torch.linalg.eigh(s_a)
        root = vectors @ values.sqrt().diag() @ vectors.T
        cross = torch.linalg.eigvalsh(root @ s_b @ root).sqrt().sum()
        return (gap.square().sum() + s_a.trace() + s_b.trace() - 2 * cross).item()

    measured = frechet_distance(a, b)
    assert measured == pytest.approx(
        distance(a.mean(0) - b.mean(0), a.T.cov(), b.T.cov()), rel=1e-9
    )
    gap = torch.ones(2, dtype=torch.float64)
    assert measured == pytest.approx(distance(gap, root_a @ root_a, root_b @ root_b), rel=0.03)


def test_a_set_is_at_no_distance_from_itself() -> None:
    a = normal(30, 8, seed=5)
    assert 0 <= frechet_distance(a, a[torch.randperm(30)]) < 1e-6
    few = normal(3, 8, seed=6)  # singular covariances
    assert 0 <= frechet_distance(few, few) < 1e-5


def test_sides_may_be_swapped() -> None:
    a, b = normal(30, 4, seed=7), 2 + 3 * normal(20, 4, seed=8)
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a), rel=1e-9)


def test_features_far_from_zero_keep_their_variance() -> None:
    a, b = normal(50, 2, seed=9), 3 * normal(50, 2, seed=10)
    assert frechet_distance(a + 1e8, b + 1e8) == pytest.approx(frechet_distance(a, b), rel=1e-6)


def test_few_samples_are_estimated_too_high() -> None:
    """The bias that the docstring warns of: one law on both sides, and no 0."""
    few = frechet_distance(normal(20, 8, seed=11), normal(20, 8, seed=12))
    many = frechet_distance(normal(2000, 8, seed=11), normal(2000, 8, seed=12))
    assert few > 10 * many > 0


@pytest.mark.parametrize("matched", [False, True])
def test_standard_error_is_the_deviation_over_samples(matched: bool) -> None:
    """Prompts shift their three images together; over 60 samples, within a third."""
    values, errors = [], []
    names = [i for i in range(50) for _ in range(3)]
    for seed in range(60):
        shifts = normal(50, 3, seed), normal(50, 3, seed if matched else 5000 + seed)
        a, b = (
            shift[names] + normal(150, 3, 1000 * (side + 1) + seed)
            for side, shift in enumerate(shifts)
        )
        values.append(frechet_distance(a, b + 1))
        others = names if matched else [100 + i for i in names]
        errors.append(frechet_stderr(a, b + 1, names, others, seed=seed))
    assert statistics.fmean(errors) == pytest.approx(statistics.stdev(values), rel=1 / 3)


@pytest.mark.parametrize(
    ("a", "b", "words"),
    [
        (torch.zeros(1, 2), torch.zeros(4, 2), "at least 2 images"),
        (torch.zeros(4, 2), torch.zeros(0, 2), "at least 2 images"),
        (torch.zeros(4), torch.zeros(4), r"shape \[4\]"),
        (torch.zeros(4, 2), torch.zeros(4, 3), "width 2 and 3"),
        (torch.zeros(4, 2), torch.full((4, 2), math.nan), "NaN"),
        (torch.full((4, 2), math.inf), torch.zeros(4, 2), "NaN or infinity"),
    ],
)
def test_bad_features(a: Tensor, b: Tensor, words: str) -> None:
    with pytest.raises(TastemakerError, match=words):
        frechet_distance(a, b)


def test_images_by_hand() -> None:
    # Grey 0 and 51 against 102 and 255, as 0, .2 and .4, 1 in each of three equal channels. The
    # covariances are var * ones(3, 3): the mean term is 3 (.1 - .7)^2, the trace 3 (s_a - s_b)^2.
    s_a, s_b = 0.2 / math.sqrt(2), 0.6 / math.sqrt(2)
    expected = 3 * 0.6**2 + 3 * (s_a - s_b) ** 2
    measured = frechet_images([grey(0), grey(51)], [grey(102), grey(255)], mean_colour)
    assert measured == pytest.approx(expected, abs=1e-5)


class Noisy(nn.Module):
    """Gives every image its features in evaluation mode alone."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 5)
        self.norm = nn.BatchNorm1d(5)
        self.dropout = nn.Dropout(0.5)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.dropout(self.norm(self.linear(pixels.mean((2, 3)))))


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_batches_enter_no_number(batch_size: int) -> None:
    torch.manual_seed(0)
    network = Noisy()
    images = [grey(value) for value in range(0, 250, 25)]
    whole = image_features(images, network, batch_size=10)
    assert whole.dtype == torch.float64
    assert not whole.requires_grad
    parts = image_features(iter(images), network, batch_size=batch_size)
    torch.testing.assert_close(parts, whole, atol=1e-6, rtol=0)
    assert whole[0].dist(whole[-1]) > 0.01  # and in the order of the images
    assert frechet_images(images[:5], images[5:], network, batch_size=batch_size) == pytest.approx(
        frechet_images(images[:5], images[5:], network), rel=1e-4
    )


def test_pixels_reach_the_network_as_promised() -> None:
    seen: list[Tensor] = []

    def network(pixels: Tensor) -> Tensor:
        seen.append(pixels)
        return mean_colour(pixels)

    image = Image.new("RGBA", (3, 2), (255, 51, 0, 7))
    features = image_features([image], network)
    assert seen[0].shape == (1, 3, 2, 3)
    assert seen[0].dtype == torch.float32
    torch.testing.assert_close(
        features, torch.tensor([[1.0, 0.2, 0.0]], dtype=torch.float64), atol=1e-6, rtol=0
    )


def test_a_network_of_half_precision_gets_pixels_of_its_own() -> None:
    network = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2)).bfloat16()
    features = image_features([grey(0), grey(255)], network)
    assert features.shape == (2, 2)
    assert features.dtype == torch.float64


@pytest.mark.parametrize("batch_size", [1, 2, 64])
def test_images_of_two_sizes(batch_size: int) -> None:
    images = [grey(0), grey(1), grey(2, size=5)]
    with pytest.raises(TastemakerError, match="differ in size"):
        image_features(images, mean_colour, batch_size=batch_size)


def test_bad_images_and_networks() -> None:
    with pytest.raises(TastemakerError, match="no images"):
        image_features([], mean_colour)
    with pytest.raises(TastemakerError, match="at least 2 images"):
        frechet_images([grey(0)], [grey(0), grey(1)], mean_colour)
    with pytest.raises(TastemakerError, match="batch_size is 0"):
        image_features([grey(0)], mean_colour, batch_size=0)
    with pytest.raises(TastemakerError, match=r"gave \[2, 3, 4, 4\] for 2 images"):
        image_features([grey(0), grey(1)], lambda pixels: pixels)
    with pytest.raises(TastemakerError, match=r"gave \[1, 3\] for 2 images"):
        image_features([grey(0), grey(1)], lambda pixels: mean_colour(pixels)[:1])
    with pytest.raises(TastemakerError, match="NaN or infinity"):
        image_features([grey(0)], lambda pixels: mean_colour(pixels) / 0)


def test_only_inceptions_own_weights_would_need_more_packages() -> None:
    """With torch-fidelity, torchvision and scipy out of reach, the distance is still there."""
    code = """
import importlib.metadata, sys
for name in ("torch_fidelity", "torchvision", "scipy"):
    sys.modules[name] = None
found = importlib.metadata.distribution
def distribution(name):
    if name.replace("-", "_").lower() in ("torch_fidelity", "torchvision", "scipy"):
        raise importlib.metadata.PackageNotFoundError(name)
    return found(name)
importlib.metadata.distribution = distribution
import torch
from tastemaker.metrics.frechet import frechet_distance
print(round(frechet_distance(torch.tensor([[0.], [2.]]), torch.tensor([[1.], [9.]])), 6))
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert run.stdout.strip() == "34.0", run.stderr[-2000:]
