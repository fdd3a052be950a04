"""Frechet distance between the features of two sets of images."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from itertools import islice

import torch
from PIL import Image
from torch import Tensor, nn

from tastemaker.core.errors import TastemakerError
from tastemaker.core.seeding import keyed_generator
from tastemaker.storage.images import to_pixels


def frechet_distance(features_a: Tensor, features_b: Tensor) -> float:
    """Squared Frechet distance of two sets of features, each taken for a Gaussian.

    `d = |m_a - m_b|^2 + Tr(S_a + S_b - 2 (S_a S_b)^(1/2))`, with the means `m` and the covariances
    `S` (over n - 1) of the two sets. Computed in float64.

    Call it by the name of the features, "Frechet distance of <network>". It is FID only where they
    are the 2048 of Inception's last pooling (`pool3`), and only distances of the same features
    compare. It is estimated too high from few samples, by about a constant over n, so that sets
    are compared at equal n; with n <= d the covariances are singular, and the value tells little
    but an order. `equal_sets` chooses such sets, and a second set of real images whose distance is
    that of equal laws.

    Args:
        features_a: One row per image, [n, d]; n of 2 or more, useful from about 10 d on.
        features_b: The other set, [m, d].

    Returns:
        The distance, 0 for equal means and covariances, in squared units of the features.

    Raises:
        TastemakerError: A set is not a matrix, has fewer than 2 rows or a value that is not finite,
            or the widths differ.

    Example:
        >>> a, b = torch.tensor([[0.0], [2.0]]), torch.tensor([[1.0], [9.0]])
        >>> round(frechet_distance(a, b), 6)  # (1 - 5)^2 + (sqrt(2) - sqrt(32))^2
        34.0

    References:
        Dowson and Landau (1982), The Frechet distance between multivariate normal distributions;
        Heusel et al. (FID), arXiv 1706.08500, eq. 6; Chong and Forsyth (the bias), arXiv
        1911.07023.
    """
    a, b = feature_matrices(features_a, features_b)
    shift = (a.mean(0) - b.mean(0)).square().sum()
    # Tr((S_a S_b)^(1/2)) is the sum of the singular values of A B^T, with S = A^T A of either.
    a, b = map(_root, (a, b))
    cross = torch.linalg.svdvals(a @ b.T).sum()
    # Rounding takes a distance of 0 below it.
    return max(float(shift + a.square().sum() + b.square().sum() - 2 * cross), 0.0)


def frechet_stderr(
    features_a: Tensor,
    features_b: Tensor,
    clusters_a: Sequence[Hashable],
    clusters_b: Sequence[Hashable],
    *,
    resamples: int = 50,
    seed: int = 0,
    values: list[float] | None = None,
) -> float:
    """Standard error of a Frechet distance: its deviation over resamples of the clusters.

    Clusters are drawn with replacement, with all of their images. Where both sides have the same
    clusters they are drawn together, so that captions stay equal. A resample holds repetitions and
    has a larger distance than the sets themselves; the deviation alone is used.

    Args:
        features_a: One row per image, [n, d].
        features_b: The other set, [m, d].
        clusters_a: What each image belongs to, for instance its prompt.
        clusters_b: The same of the other set.
        resamples: How many, 2 or more; 50 give the error within some 10%.
        seed: Of the resamples.
        values: Distances of the first resamples where they are known; gets those of all.

    Returns:
        The standard error; NaN where a side has one cluster alone.

    References:
        Efron and Tibshirani (1993), An introduction to the bootstrap, chapter 6.
    """
    rows_a, rows_b = _rows_of(clusters_a), _rows_of(clusters_b)
    if min(len(rows_a), len(rows_b)) < 2:
        return math.nan
    generator = keyed_generator(seed, "frechet resamples")
    together = rows_a.keys() == rows_b.keys()
    values = [] if values is None else values
    for number in range(resamples):
        chosen = _chosen(rows_a, generator)
        others = chosen if together else _chosen(rows_b, generator)
        if number < len(values):
            continue
        part_a = features_a[[row for name in chosen for row in rows_a[name]]]
        part_b = features_b[[row for name in others for row in rows_b[name]]]
        values.append(frechet_distance(part_a, part_b))
    return statistics.stdev(values)


def feature_matrices(features_a: Tensor, features_b: Tensor) -> tuple[Tensor, Tensor]:
    """Check two sets of features that are to be compared.

    Args:
        features_a: One row per image, [n, d]; n of 2 or more.
        features_b: The other set, [m, d].

    Returns:
        Both in float64 on the CPU.

    Raises:
        TastemakerError: A set is not a matrix, has fewer than 2 rows or a value that is not finite,
            or the widths differ.
    """
    a, b = (features.detach().cpu().double() for features in (features_a, features_b))
    for features in (a, b):
        if features.ndim != 2 or len(features) < 2:
            raise TastemakerError(
                f"features of shape {list(features.shape)} cannot be compared: give [n, d] of at"
                " least 2 images a set."
            )
        if not features.isfinite().all():
            raise TastemakerError("features hold NaN or infinity; check the network's precision.")
    if a.shape[1] != b.shape[1]:
        raise TastemakerError(
            f"features of width {a.shape[1]} and {b.shape[1]} do not compare; use one network."
        )
    return a, b


def _root(features: Tensor) -> Tensor:
    """Return a matrix whose `A^T A` is the covariance, of at most d rows."""
    centred = (features - features.mean(0)) / (len(features) - 1) ** 0.5
    if len(centred) > centred.shape[1]:
        centred = torch.linalg.qr(centred, mode="r").R
    return centred


def _rows_of(clusters: Sequence[Hashable]) -> dict[Hashable, list[int]]:
    rows: dict[Hashable, list[int]] = {}
    for row, cluster in enumerate(clusters):
        rows.setdefault(cluster, []).append(row)
    return rows


def _chosen(rows: dict[Hashable, list[int]], generator: torch.Generator) -> list[Hashable]:
    names = list(rows)
    return [names[i] for i in torch.randint(len(names), (len(names),), generator=generator)]


def frechet_images(
    images_a: Iterable[Image.Image],
    images_b: Iterable[Image.Image],
    features: Callable[[Tensor], Tensor],
    *,
    batch_size: int = 64,
) -> float:
    """Frechet distance of two sets of images in the features of a network.

    `d(features(a), features(b))`; see `frechet_distance` for what it means and how many it needs.

    Args:
        images_a: Images of one size.
        images_b: Images of one size, which may be another where the network takes both.
        features: Network from pixels in [0, 1], [n, 3, height, width], to features [n, d].
        batch_size: Images a network pass; it enters no number.

    Returns:
        The distance.

    Raises:
        TastemakerError: A set has fewer than 2 images or images of several sizes, or the features
            are not a finite matrix.
    """
    a, b = (
        image_features(images, features, batch_size=batch_size) for images in (images_a, images_b)
    )
    return frechet_distance(a, b)


def image_features(
    images: Iterable[Image.Image],
    network: Callable[[Tensor], Tensor],
    *,
    batch_size: int = 64,
) -> Tensor:
    """Features of images, or any other row that a network gives for each: `f_i = network(x_i)`.

    Args:
        images: As of `feature_batches`.
        network: As of `feature_batches`.
        batch_size: Images a pass, 1 or more.

    Returns:
        [images, d], float64 on the CPU, in the order of the images.

    Raises:
        TastemakerError: No images, or an error of `feature_batches`.
    """
    return one_matrix(feature_batches(images, network, batch_size))


def one_matrix(parts: Iterable[Tensor]) -> Tensor:
    """Join the rows of images that come in batches.

    Raises:
        TastemakerError: There are none.
    """
    rows = list(parts)
    if not rows:
        raise TastemakerError("there are no images to measure; give at least one.")
    return torch.cat(rows)


@torch.no_grad()
def feature_batches(
    images: Iterable[Image.Image], network: Callable[[Tensor], Tensor], batch_size: int
) -> Iterator[Tensor]:
    """Features of images, batch by batch.

    A module works in the device and precision of its parameters and is left in evaluation mode, in
    which an image's row does not depend on the others of its batch.

    Args:
        images: Images of one size, read once and as RGB; a generator need not hold them all.
        network: From pixels in [0, 1], [n, 3, height, width], to [n, d].
        batch_size: Images a pass, 1 or more.

    Yields:
        [n, d], float64 on the CPU, in the order of the images.

    Raises:
        TastemakerError: Images of several sizes, or outputs that are not a finite matrix.
    """
    if batch_size < 1:
        raise TastemakerError(f"batch_size is {batch_size}; it must be 1 or more.")
    like = torch.empty(0)
    if isinstance(network, nn.Module):
        network.eval()
        like = next((p for p in network.parameters() if p.is_floating_point()), like)
    stream = iter(images)
    size = None
    while batch := [image.convert("RGB") for image in islice(stream, batch_size)]:
        size = size or batch[0].size
        if batch[0].size != size:
            raise TastemakerError(
                f"images differ in size: {size} and {batch[0].size}; bring them to one size first."
            )
        output = network(((to_pixels(batch) + 1) / 2).to(like))
        if output.ndim != 2 or len(output) != len(batch):
            raise TastemakerError(
                f"the network gave {list(output.shape)} for {len(batch)} images; it must give one"
                " row an image, [n, d]."
            )
        if not output.isfinite().all():
            raise TastemakerError("the network gave NaN or infinity; run it in float32.")
        yield output.cpu().double()
