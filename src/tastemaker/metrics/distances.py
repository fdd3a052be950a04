"""Distances of a model's images to real ones, as an evaluation reports them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import Tensor

from tastemaker.core.errors import TastemakerError
from tastemaker.metrics.equal_sets import EqualSets, Rows, captions_match, equal_sets, pick_equal
from tastemaker.metrics.features import INCEPTION_LABEL
from tastemaker.metrics.frechet import frechet_distance, frechet_stderr
from tastemaker.metrics.kernel_distance import kernel_distance

LEAST_FOR_FID = 2048
"""Below the dimension of `pool3` a Frechet distance is not what the literature calls FID."""


@dataclass(frozen=True)
class Captions:
    """Captions of the images that all models drew, and of the real ones.

    Args:
        drawn: One an image.
        real: One an image.
        seed: Of the split of the real images.
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
        """Rows for a distance without bias: as many as there are, captions equal if known."""
        rows = list(range(len(self.drawn))), list(range(len(self.real)))
        matched = captions_match(self.drawn, self.real)
        return pick_equal(self.drawn, self.real, *rows) if matched else rows


def distances(drawn: Tensor, real: Tensor, captions: Captions, label: str) -> dict[str, Any]:
    """Measure how far a model's images lie from real ones.

    Args:
        drawn: Features of the model's images, [n, d].
        real: Features of the real images, [m, d].
        captions: Of both, in the same order.
        label: Of the features.

    Returns:
        `frechet`, of equal numbers of images, with the same distance between two halves of the
        real ones, and `kernel`, without bias; standard errors are clustered by caption, None where
        there are too few captions. `dimension` is d, `captions` whether both sides have equal ones.

    Raises:
        TastemakerError: Fewer than 2 images a set.
    """
    sets = captions.equal
    if len(sets.real) < 2:
        raise TastemakerError(
            f"{len(captions.real)} real images are too few for a distance: each half needs two that"
            " the models have as many images for; give more."
        )
    inception, number = label == INCEPTION_LABEL, len(sets.real)
    here, there = drawn[sets.drawn], real[sets.real]
    of_here, of_there = _named(captions, sets.drawn, sets.real)
    common = {"dimension": drawn.shape[1], "captions": "equal" if sets.matched else "any"}
    frechet = {
        "name": "FID" if inception and number >= LEAST_FOR_FID else "Frechet distance",
        "value": frechet_distance(here, there),
        "stderr": _known(frechet_stderr(here, there, of_here, of_there, seed=captions.seed)),
        "real_to_real": frechet_distance(real[sets.others], there),
        "images": number,
    }
    rows = captions.all
    kernel = kernel_distance(drawn[rows[0]], real[rows[1]], *_named(captions, *rows))
    return {
        "frechet": {**frechet, **common},
        "kernel": {
            "name": "KID"
            if inception and min(map(len, rows)) >= LEAST_FOR_FID
            else "kernel distance",
            "value": kernel.value,
            "stderr": _known(kernel.stderr),
            "images": min(map(len, rows)),
            **common,
        },
    }


def _named(captions: Captions, drawn: Rows, real: Rows) -> tuple[list[str], list[str]]:
    return [captions.drawn[row] for row in drawn], [captions.real[row] for row in real]


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None
