"""How far two sets of images lie apart: the kernel distance between their features."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import torch
from torch import Tensor

from tastemaker.errors import TastemakerError
from tastemaker.seeding import keyed_seed


@dataclass(frozen=True)
class KernelDistance:
    """Mean of the distance over the subsets, and its deviation (over n), as torchmetrics has it."""

    mean: float
    std: float


def kernel_distance(
    features_a: Tensor,
    features_b: Tensor,
    *,
    subsets: int = 100,
    subset_size: int = 1000,
    seed: int = 0,
) -> KernelDistance:
    """Squared maximum mean discrepancy of two sets of features, with a cubic kernel.

    `MMD^2 = mean_{i != j} k(a_i, a_j) + mean_{i != j} k(b_i, b_j) - 2 mean_{i, j} k(a_i, b_j)`,
    `k(x, y) = (x . y / d + 1)^3`, without bias, on random subsets. The arithmetic is torchmetrics',
    in float64.

    Call it by the name of the features, "kernel distance of <network>". It is KID only where they
    are the 2048 of Inception's last pooling (`pool3`); another network's must not be called so, and
    only distances of the same features compare. Unlike the Frechet distance it does not fall with
    the number of images, so that sets of a few hundred can be measured, and it may be below 0.

    The subsets of one set overlap: the deviation says how much a subset's value varies, not how
    sure the mean is.

    Args:
        features_a: One row an image, [n, d]; a subset's rows are drawn without replacement.
        features_b: The other set, [m, d].
        subsets: How many subsets to measure, 1 or more; 100 is customary.
        subset_size: Images of each set in a subset, from 2 to the smaller set's number.
        seed: Of the subsets. The global generators stay as they are.

    Returns:
        Mean and standard deviation over the subsets; about 0 for two samples of one law.

    Raises:
        TastemakerError: A set is no matrix, holds fewer rows than a subset or a value that is not
            finite, the widths differ, or a number is out of its range.

    Example:
        >>> a, b = torch.zeros(2, 1), torch.ones(2, 1)
        >>> kernel_distance(a, b, subsets=1, subset_size=2)  # 1 + 2^3 - 2 * 1
        KernelDistance(mean=7.0, std=0.0)

    References:
        Binkowski et al. (KID), Demystifying MMD GANs, arXiv 1801.01401; Gretton et al. (2012), A
        kernel two-sample test, eq. 3.
    """
    from torchmetrics.image.kid import KernelInceptionDistance

    if subsets < 1 or subset_size < 2:
        raise TastemakerError(
            f"subsets is {subsets} and subset_size {subset_size}; they must be at least 1 and 2."
        )
    a, b = (_matrix(features, subset_size) for features in (features_a, features_b))
    if a.shape[1] != b.shape[1]:
        raise TastemakerError(
            f"features of width {a.shape[1]} and {b.shape[1]} do not compare; use one network."
        )
    # torchmetrics draws the subsets with the global generator.
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        torch.default_generator.manual_seed(keyed_seed(seed, "kernel distance"))
        # That it keeps all features in memory.
        warnings.simplefilter("ignore", UserWarning)
        # Each process holds its whole sets: there is nothing to gather, and nobody to wait for.
        metric = KernelInceptionDistance(
            torch.nn.Identity(), subsets=subsets, subset_size=subset_size, sync_on_compute=False
        )
        metric.update(a, real=True)
        metric.update(b, real=False)
        mean, std = metric.compute()
    return KernelDistance(float(mean), float(std))


def _matrix(features: Tensor, rows: int) -> Tensor:
    features = features.detach().cpu().double()
    if features.ndim != 2:
        raise TastemakerError(
            f"features of shape {list(features.shape)} are no matrix; give [n, d], a row an image."
        )
    if len(features) < rows:
        raise TastemakerError(
            f"a set of {len(features)} images has no subset of {rows}; lower subset_size, or give"
            " more images."
        )
    if not features.isfinite().all():
        raise TastemakerError("features hold NaN or infinity; check the network's precision.")
    return features
