"""Kernel distance between the features of two sets of images."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from tastemaker.core.errors import TastemakerError
from tastemaker.metrics.frechet import feature_matrices

CHUNK = 512
"""Rows of the kernel matrix in memory at a time."""


class KernelDistance(NamedTuple):
    """The distance and its standard error, NaN where there are too few clusters for one."""

    value: float
    stderr: float


class _Sums(NamedTuple):
    """Over all pairs of different clusters: the kernel's sum and number of each row's pairs."""

    total: Tensor
    pairs: Tensor


def kernel_distance(
    features_a: Tensor,
    features_b: Tensor,
    clusters_a: Sequence[Hashable] | None = None,
    clusters_b: Sequence[Hashable] | None = None,
) -> KernelDistance:
    """Squared maximum mean discrepancy of two sets of features, with a cubic kernel.

    `MMD^2 = mean k(a_i, a_j) + mean k(b_i, b_j) - 2 mean k(a_i, b_j)`,
    `k(x, y) = (x . y / d + 1)^3`, each mean over all pairs of different clusters, without bias.
    The standard error is the jackknife's over clusters: each is left out once, on both sides.

    Call it by the name of the features, "kernel distance of <network>". It is KID only where they
    are the 2048 of Inception's last pooling (`pool3`); another network's must not be called so, and
    only distances of the same features compare. Unlike the Frechet distance it does not fall with
    the number of images: prefer it below 5,000. It may be below 0. All pairs are taken, where the
    authors of KID average over subsets of 1000; the expectation is the same.

    Args:
        features_a: One row per image, [n, d], n of 2 or more.
        features_b: The other set, [m, d].
        clusters_a: Of each image, e.g. its prompt; None: each image is a cluster of its own.
        clusters_b: The same of the other set; a prompt named on both sides is one cluster.

    Returns:
        The distance, about 0 for two samples of one law, and its standard error.

    Raises:
        TastemakerError: A set is not a matrix, has fewer than 2 rows or a value that is not finite,
            the widths differ, or all images of a set are of one cluster.

    Example:
        >>> a, b = torch.zeros(2, 1), torch.ones(2, 1)
        >>> kernel_distance(a, b).value  # 1 + 2^3 - 2 * 1
        7.0

    References:
        Binkowski et al. (KID), arXiv 1801.01401; Gretton et al. (2012), A kernel two-sample test,
        eq. 3; Efron (1982), The jackknife, the bootstrap and other resampling plans.
    """
    a, b = feature_matrices(features_a, features_b)
    ids: dict[Hashable, int] = {}
    of_a, of_b = (
        _numbered(clusters, len(rows), side, ids)
        for side, (clusters, rows) in enumerate(((clusters_a, a), (clusters_b, b)))
    )
    aa, bb = _sums(a, of_a, a, of_a), _sums(b, of_b, b, of_b)
    ab, ba = _sums(a, of_a, b, of_b), _sums(b, of_b, a, of_a)
    if not (aa.pairs.sum() and bb.pairs.sum() and ab.pairs.sum()):
        raise TastemakerError("all images of a set are of one prompt; give images of several.")
    value = _mean(aa) + _mean(bb) - 2 * _mean(ab)
    # Without cluster g its pairs go: twice within a set, and from either side across.
    left_out = (
        _without(_mean_parts(aa), [(aa, of_a, 2)], len(ids))
        + _without(_mean_parts(bb), [(bb, of_b, 2)], len(ids))
        - 2 * _without(_mean_parts(ab), [(ab, of_a, 1), (ba, of_b, 1)], len(ids))
    )
    g = len(ids)
    square = (left_out - left_out.mean()).square().sum() * (g - 1) / g
    return KernelDistance(float(value), math.sqrt(square) if square.isfinite() else math.nan)


def _numbered(
    clusters: Sequence[Hashable] | None, rows: int, side: int, ids: dict[Hashable, int]
) -> Tensor:
    """Each row's number of its cluster; rows without one have numbers of their own."""
    names = [(side, row) for row in range(rows)] if clusters is None else list(clusters)
    if len(names) != rows:
        raise ValueError(f"{len(names)} clusters of {rows} images")
    return torch.tensor([ids.setdefault(name, len(ids)) for name in names])


def _sums(x: Tensor, of_x: Tensor, y: Tensor, of_y: Tensor) -> _Sums:
    totals, pairs = [], []
    for part, own in zip(x.split(CHUNK), of_x.split(CHUNK), strict=True):
        apart = own[:, None] != of_y[None]
        kernel = (part @ y.T / x.shape[1] + 1) ** 3
        totals.append((kernel * apart).sum(1))
        pairs.append(apart.sum(1).double())
    return _Sums(torch.cat(totals), torch.cat(pairs))


def _mean_parts(sums: _Sums) -> tuple[Tensor, Tensor]:
    return sums.total.sum(), sums.pairs.sum()


def _mean(sums: _Sums) -> Tensor:
    total, pairs = _mean_parts(sums)
    return total / pairs


def _without(
    whole: tuple[Tensor, Tensor], parts: list[tuple[_Sums, Tensor, int]], clusters: int
) -> Tensor:
    """Return the mean over pairs with each cluster left out in turn; NaN where no pair is left."""
    total, pairs = (each.expand(clusters).clone() for each in whole)
    for sums, of, times in parts:
        total.index_add_(0, of, sums.total, alpha=-times)
        pairs.index_add_(0, of, sums.pairs, alpha=-times)
    return torch.where(pairs > 0, total, math.nan) / pairs
