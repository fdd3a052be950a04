"""How far two sets of images lie apart: the Frechet distance between their features."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice

import torch
from PIL import Image
from torch import Tensor, nn

from tastemaker.errors import TastemakerError
from tastemaker.images import to_pixels


def frechet_distance(features_a: Tensor, features_b: Tensor) -> float:
    """Squared Frechet distance of two sets of features, each taken for a Gaussian.

    `d = |m_a - m_b|^2 + Tr(S_a + S_b - 2 (S_a S_b)^(1/2))`, with the means `m` and the covariances
    `S` (over n - 1) of the two sets. The arithmetic is torchmetrics', in float64.

    Call it by the name of the features, "Frechet distance of <network>". It is FID only where they
    are the 2048 of Inception's last pooling (`pool3`), and only distances of the same features
    compare. It is estimated too high from few samples, by about a constant over n, so that sets
    are compared at equal n; with n <= d the covariances are singular, and the value tells little
    but an order. The distance between two halves of one set shows how much of it is that bias.

    Args:
        features_a: One row an image, [n, d]; n of 2 or more, useful from about 10 d on.
        features_b: The other set, [m, d].

    Returns:
        The distance, 0 for equal means and covariances, in squared units of the features.

    Raises:
        TastemakerError: A set is no matrix, holds fewer than 2 rows or a value that is not finite,
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
    from torchmetrics.image.fid import FrechetInceptionDistance

    sets = [features.detach().cpu().double() for features in (features_a, features_b)]
    for features in sets:
        if features.ndim != 2 or len(features) < 2:
            raise TastemakerError(
                f"features of shape {list(features.shape)} have no covariance: give [n, d] of at"
                " least 2 images a set."
            )
        if not features.isfinite().all():
            raise TastemakerError("features hold NaN or infinity; check the network's precision.")
    a, b = sets
    if a.shape[1] != b.shape[1]:
        raise TastemakerError(
            f"features of width {a.shape[1]} and {b.shape[1]} do not compare; use one network."
        )
    # torchmetrics sums squares, which loses the variance of features far from 0.
    centre = a.mean(0)
    # Each process holds its whole sets: there is nothing to gather, and nobody to wait for.
    metric = FrechetInceptionDistance(feature=_PassThrough(a.shape[1]), sync_on_compute=False)
    metric.update(a - centre, real=True)
    metric.update(b - centre, real=False)
    # Rounding takes a distance of 0 below it; the order of the arguments keeps a NaN.
    return max(float(metric.compute()), 0.0)


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
            are no finite matrix.
    """
    a, b = (
        image_features(images, features, batch_size=batch_size) for images in (images_a, images_b)
    )
    return frechet_distance(a, b)


@torch.no_grad()
def image_features(
    images: Iterable[Image.Image],
    network: Callable[[Tensor], Tensor],
    *,
    batch_size: int = 64,
) -> Tensor:
    """Features of images, or any other row that a network gives for each: `f_i = network(x_i)`.

    A module works in the device and precision of its parameters and is left in evaluation mode, in
    which an image's row does not depend on the others of its batch.

    Args:
        images: Images of one size, read once and as RGB; a generator need not hold them all.
        network: From pixels in [0, 1], [n, 3, height, width], to [n, d].
        batch_size: Images a pass, 1 or more.

    Returns:
        [images, d], float64 on the CPU, in the order of the images.

    Raises:
        TastemakerError: No images, images of several sizes, or outputs that are no finite matrix.
    """
    if batch_size < 1:
        raise TastemakerError(f"batch_size is {batch_size}; it must be 1 or more.")
    like = torch.empty(0)
    if isinstance(network, nn.Module):
        network.eval()
        like = next((p for p in network.parameters() if p.is_floating_point()), like)
    stream = iter(images)
    rows: list[Tensor] = []
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
        rows.append(output.cpu().double())
    if not rows:
        raise TastemakerError("there are no images to measure; give at least one.")
    return torch.cat(rows)


class _PassThrough(nn.Module):
    """Features as they are; torchmetrics asks a network for `num_features`."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, features: Tensor) -> Tensor:
        return features
