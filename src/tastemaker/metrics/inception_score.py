"""Inception Score: confidence and variety of a classifier's answers."""

from __future__ import annotations

import statistics
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

from tastemaker.core.errors import TastemakerError
from tastemaker.core.seeding import keyed_generator
from tastemaker.metrics.frechet import image_features

# exp(-650) is still above 0 in float64, so that 0 log 0 does not become NaN.
SMALLEST_LOG_PROBABILITY = -650.0


@dataclass(frozen=True)
class InceptionScore:
    """Mean and sample standard deviation (0 for one split) over splits; number of images."""

    mean: float
    std: float
    images: int


def inception_score(
    images: Iterable[Image.Image],
    classifier: Callable[[Tensor], Tensor],
    *,
    splits: int = 10,
    batch_size: int = 64,
    seed: int = 0,
) -> InceptionScore:
    """Inception Score: `exp(E_x KL(p(y|x) || p(y)))`, with `p(y) = E_x p(y|x)`.

    High where every image is surely of some class and the classes are many. It sees neither
    whether the image shows what its prompt asked for nor whether all images of a class are one.

    The images are shuffled and cut into splits as equal as can be; each split has its own `p(y)`
    and its own score. The arithmetic of a split is torchmetrics', in float64.

    Scores compare only between sets of images that the same classifier saw, at equal numbers of
    images and splits; only Inception v3 gives what is published as Inception Score.

    Args:
        images: Images of one size, read once and as RGB. A split of n images cannot score above n,
            so that it needs many times as many images as there are classes; published scores use
            50,000 in all, those of prompts 50 per class (the prompt set `imagenet_classes`).
        classifier: Network from pixels in [0, 1], [n, 3, height, width], to logits [n, classes];
            resizing and normalisation are its own. A module is left in evaluation mode.
        splits: Parts that are scored apart; 10 is customary.
        batch_size: Images per network pass; it enters no number.
        seed: Of the shuffle. The global generators stay as they are.

    Returns:
        The score, from 1 (one answer to all images) to the number of classes. Its standard
        deviation is over splits - 1; the code of Salimans et al. divides by splits.

    Raises:
        TastemakerError: No images, fewer than splits, images of several sizes, or logits that are
            not a finite matrix.

    Example:
        >>> stripes = [Image.new("RGB", (2, 2), colour) for colour in ("red", "lime", "blue")]
        >>> score = inception_score(stripes, lambda pixels: 50 * pixels.mean((2, 3)), splits=1)
        >>> round(score.mean, 6)
        3.0

    References:
        Salimans et al., Improved techniques for training GANs, arXiv 1606.03498, section 4; Barratt
        and Sharma, A note on the Inception Score, arXiv 1801.01973.
    """
    if splits < 1:
        raise TastemakerError(f"splits is {splits}; it must be 1 or more.")
    return logits_score(image_features(images, classifier, batch_size=batch_size), splits, seed)


def logits_score(logits: Tensor, splits: int, seed: int) -> InceptionScore:
    """Inception Score of images whose logits are known, [n, classes], float64.

    Raises:
        TastemakerError: Fewer images than splits.
    """
    if len(logits) < splits:
        raise TastemakerError(
            f"{len(logits)} images cannot be cut into {splits} splits; give more, or lower splits."
        )
    order = torch.randperm(len(logits), generator=keyed_generator(seed, "inception score"))
    log_p = logits[order].log_softmax(1).clamp_min(SMALLEST_LOG_PROBABILITY)
    # Not torchmetrics' own splits: of 12 images it makes 6 where 10 are asked for.
    scores = [_score(part) for part in log_p.tensor_split(splits)]
    std = statistics.stdev(scores) if splits > 1 else 0.0
    return InceptionScore(statistics.fmean(scores), std, len(logits))


def _score(log_p: Tensor) -> float:
    """Score of one split; log-probabilities are logits of themselves."""
    from torchmetrics.image.inception import InceptionScore as Metric

    # It shuffles with the global generator, though the order enters the last digits of a sum alone.
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        torch.default_generator.manual_seed(0)
        # That it keeps all features in memory, and that one split has no deviation.
        warnings.simplefilter("ignore", UserWarning)
        # Each process holds its whole set: there is nothing to gather, and nobody to wait for.
        metric = Metric(torch.nn.Identity(), splits=1, sync_on_compute=False)
        metric.update(log_p)
        return float(metric.compute()[0])
