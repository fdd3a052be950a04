"""Metrics of `evaluate` by name; torch is imported where one is computed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Annotated, Any

from PIL import Image
from pydantic import Field

from tastemaker.core.errors import TastemakerError
from tastemaker.core.registry import METRICS
from tastemaker.core.values import Names
from tastemaker.metrics.equal_sets import EqualSets, Rows, captions_match, equal_sets, pick_equal
from tastemaker.metrics.networks import (
    INCEPTION,
    INCEPTION_LABEL,
    Network,
    classifier_identity,
    is_inception,
)

if TYPE_CHECKING:
    from torch import Tensor

    from tastemaker.metrics.kept import Batches

Entry = dict[str, dict[str, Any]]
"""Values of `report.json` by the label of features or classifier."""

IDENTICAL = 1e-9
"""Diversity of the base below which its images of a prompt are the same, and no ratio is one."""

LEAST_FOR_FID = 2048
"""Images, the dimension of `pool3`, below which a Frechet distance is not called FID."""


@dataclass(frozen=True)
class Captions:
    """Captions of the images that all models drew, and of the real ones.

    Args:
        drawn: One per image.
        real: One per image.
        seed: Seed of the split of the real images.
    """

    drawn: list[str]
    real: list[str]
    seed: int

    @cached_property
    def equal(self) -> EqualSets:
        """Rows for a distance whose bias depends on the number of images."""
        return equal_sets(self.drawn, self.real, self.seed)

    @cached_property
    def all(self) -> tuple[Rows, Rows]:
        """Rows for a distance without bias: all, or those of equal captions."""
        rows = list(range(len(self.drawn))), list(range(len(self.real)))
        matched = captions_match(self.drawn, self.real)
        return pick_equal(self.drawn, self.real, *rows) if matched else rows


@dataclass(frozen=True)
class Features:
    """Features of a model's images and of real ones.

    Args:
        drawn: Features of the model's images, [n, d].
        real: Features of the real images, [m, d].
        captions: Captions of both, in the same order.
        label: Name of the features.
        resampled: Keeps distances of resamples that are added to its list.
    """

    drawn: Tensor
    real: Tensor
    captions: Captions
    label: str
    resampled: Callable[[], AbstractContextManager[list[float]]] = lambda: nullcontext([])

    def entry(self, name: str, value: float, stderr: float, images: int, matched: bool) -> Entry:
        """Return an entry of `report.json`, under the label of the features.

        Only 2,048 or more images in Inception's features give what the literature means by a name.
        """
        known = {"Frechet distance": "FID", "kernel distance": "KID"}
        full = self.label == INCEPTION_LABEL and images >= LEAST_FOR_FID
        return {
            self.label: {
                "name": known[name] if full else name,
                "value": value,
                "stderr": stderr if math.isfinite(stderr) else None,
                "images": images,
                "dimension": self.drawn.shape[1],
                "captions": "equal" if matched else "any",
            }
        }


@dataclass(frozen=True)
class Images:
    """Images of one model, and options of the network that looks at them.

    Args:
        read: Reads the images from the first to the last.
        rows: Returns what a network gives for each image, [n, d], float64. It is computed once for
            images and network: the second argument, which loads it, may not be called.
        device: "cpu", "auto", "cuda" or "mps".
        batch_size: Images per network pass.
        seed: Seed of random choices.
    """

    read: Callable[[], Iterable[Image.Image]]
    rows: Callable[[Network, Callable[[], Batches]], Tensor]
    device: str
    batch_size: int
    seed: int


@dataclass(frozen=True)
class Paired:
    """Features of a model's images and of the base's, of equal prompts and seeds.

    Args:
        drawn: Features of the model's images, [n, d].
        base: Features of the base's images, [n, d]; None for the base itself.
        prompts: The prompt of each image.
        label: Name of the features.
    """

    drawn: Tensor
    base: Tensor | None
    prompts: list[str]
    label: str


@METRICS.register("frechet")
def frechet(features: Features) -> Entry:
    """Frechet distance to real images, at equal numbers of images.

    Args:
        features: Features of a model's and of real images.

    Returns:
        Value, standard error clustered by caption (None with too few captions), and the distance
        between two halves of the real images, `real_to_real`.

    Raises:
        TastemakerError: Fewer than 2 images per set.
    """
    from tastemaker.metrics.frechet import frechet_distance, frechet_stderr

    captions, real = features.captions, features.real
    sets = captions.equal
    if len(sets.real) < 2:
        raise TastemakerError(
            f"{len(captions.real)} real images are too few for a distance: each half needs two that"
            " the models have as many images for; give more."
        )
    here, there = features.drawn[sets.drawn], real[sets.real]
    names = _named(captions, sets.drawn, sets.real)
    with features.resampled() as values:
        stderr = frechet_stderr(here, there, *names, seed=captions.seed, values=values)
    distance, images = frechet_distance(here, there), len(sets.real)
    found = features.entry("Frechet distance", distance, stderr, images, sets.matched)
    found[features.label]["real_to_real"] = frechet_distance(real[sets.others], there)
    return found


@METRICS.register("kernel")
def kernel(features: Features) -> Entry:
    """Kernel distance to real images, without bias: prefer it below 5,000 images.

    Args:
        features: Features of a model's and of real images.

    Returns:
        Value, and standard error clustered by caption (None with too few captions).

    Raises:
        TastemakerError: Fewer than 2 images per set, or all of one caption.
    """
    from tastemaker.metrics.kernel_distance import kernel_distance

    rows = features.captions.all
    names = _named(features.captions, *rows)
    distance = kernel_distance(features.drawn[rows[0]], features.real[rows[1]], *names)
    matched = features.captions.equal.matched
    return features.entry("kernel distance", *distance, min(map(len, rows)), matched)


@METRICS.register("diversity")
def diversity(paired: Paired) -> Entry:
    """Mean cosine distance between images of one prompt, and its change against the base.

    Args:
        paired: Features of a model's and of the base's images, two or more per prompt.

    Returns:
        Mean over prompts with standard error, and for a judged model the relative difference to the
        base (-0.05: 5% less) with its 95% interval, paired by prompt.

    Raises:
        TastemakerError: A prompt has one image alone.
    """
    from tastemaker.metrics.clusters import mean_and_stderr, relative_difference
    from tastemaker.metrics.diversity import pairwise_distances

    distances = pairwise_distances(paired.drawn, paired.prompts)
    value, stderr = mean_and_stderr(distances)
    entry = {
        "name": "diversity",
        "value": value,
        "stderr": stderr if math.isfinite(stderr) else None,
        "images": len(paired.prompts),
    }
    base = [] if paired.base is None else pairwise_distances(paired.base, paired.prompts)
    if max(base, default=0) > IDENTICAL:
        found = relative_difference(distances, base)
        ends = {"relative_low": found.low, "relative_high": found.high}
        entry["relative_difference"] = found.mean
        entry |= {name: end if math.isfinite(end) else None for name, end in ends.items()}
    return {paired.label: entry}


@METRICS.register("inception_score")
def inception_score(
    images: Images,
    *,
    classifier: Annotated[
        str,
        Names("classifier"),
        Field(
            description="inception, inception:FILE (its weights), or a TorchScript file from pixels"
            " in [0, 1] to logits."
        ),
    ] = INCEPTION,
    splits: Annotated[int, Field(ge=1, description="Parts that are scored apart.")] = 10,
) -> dict[str, dict[str, Any]]:
    """Inception Score of a model's images; it needs no real images.

    Args:
        images: The model's images.
        classifier: Only `inception` gives what the literature calls Inception Score.
        splits: Parts that are scored apart; 10 is customary.

    Returns:
        By label of the classifier, mean and standard deviation over the splits, and the standard
        error of the mean, None with one split.

    Raises:
        TastemakerError: Fewer images than splits, or images of several sizes.
    """
    from tastemaker.metrics.features import classifier_batches
    from tastemaker.metrics.inception_score import logits_score

    network = classifier_identity(classifier)
    load = partial(classifier_batches, classifier, images.device, images.batch_size)
    score = logits_score(images.rows(network, load), splits, images.seed)
    entry = {
        "name": "Inception Score" if is_inception(classifier) else "classifier score",
        "value": score.mean,
        "stderr": score.std / splits**0.5 if splits > 1 else None,
        "std": score.std,
        "splits": splits,
        "images": score.images,
    }
    return {network.label: entry}


def _named(captions: Captions, drawn: Rows, real: Rows) -> tuple[list[str], list[str]]:
    return [captions.drawn[row] for row in drawn], [captions.real[row] for row in real]
