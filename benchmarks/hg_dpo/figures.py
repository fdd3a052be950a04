"""Numbers of the tables: means, differences and distances over images, with 95% intervals.

Two things vary: the captions, of which each owns several images, and the training seed. Images of
one caption and seed are compared with the other model's of the same; half the width of an interval
is the root of the sum of squares of what Student's t gives for either. One seed shows captions
alone.
"""

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor

from tastemaker.metrics.clusters import mean_interval, two_sided_95
from tastemaker.metrics.diversity import pairwise_distances

ATTRIBUTES = ("gender", "background", "hair", "clothes")


class Interval(NamedTuple):
    """A value and its 95% interval."""

    value: float
    low: float
    high: float


@dataclass
class Images:
    """One model's images of the held-out captions, in the photographs' order.

    Attributes:
        columns: A list per measured column, and `caption`.
        real: Features of the photographs by name, [n, d]; of other photographs' rows alike.
    """

    columns: dict[str, list[Any]]
    real: dict[str, Tensor] = field(default_factory=dict)

    @cached_property
    def captions(self) -> list[str]:
        """What each image was drawn for."""
        return self.columns["caption"]

    def at(self, places: Sequence[int]) -> "Images":
        """The images of some of the photographs."""
        return Images(
            {name: [values[place] for place in places] for name, values in self.columns.items()},
            {name: rows[list(places)] for name, rows in self.real.items()},
        )

    def without(self, features: str) -> list[float]:
        """Kernel distances x 1000 to the photographs: of all images, then without each caption."""
        if features not in self._kept:
            drawn = torch.tensor(self.columns[features], dtype=torch.float64)
            self._kept[features] = kernel_distances(drawn, self.real[features], self.captions)
        return self._kept[features]

    @cached_property
    def _kept(self) -> dict[str, list[float]]:
        return {}


def kernel_distances(drawn: Tensor, real: Tensor, captions: Sequence[str]) -> list[float]:
    """Kernel distances x 1000, `metrics.kernel_distance`: of all, then without each caption.

    Args:
        drawn: Features, [n, d].
        real: The photographs', [n, d], in the same order of captions.
        captions: Of both.
    """
    names = list(dict.fromkeys(captions))
    member = torch.tensor([[each == name for each in captions] for name in names]).double()
    counts = member.sum(1)
    pairs = counts[:, None] * counts[None]

    def summed(a: Tensor, b: Tensor) -> Tensor:
        return member @ (a @ b.T / a.shape[1] + 1) ** 3 @ member.T

    sums = summed(drawn, drawn) + summed(real, real) - 2 * summed(drawn, real)
    apart = 1 - torch.eye(len(names), dtype=torch.float64)
    sums, pairs = sums * apart, pairs * apart
    whole, number = sums.sum(), pairs.sum()
    left = (whole - sums.sum(0) - sums.sum(1)) / (number - 2 * pairs.sum(1))
    return [1000 * float(each) for each in (whole / number, *left)]


def distance(
    models: Sequence[Images], base: Sequence[Images] | None, features: str = "efficientnet"
) -> Interval:
    """Kernel distance x 1000 to the photographs, or how far it is above that of other models.

    Args:
        models: A training seed each.
        base: Those to compare with; None gives the distance itself.
        features: Column.
    """
    seeds = [model.without(features) for model in models]
    left = _mean_of(seeds)
    if base is not None:
        others = _mean_of([each.without(features) for each in base])
        left = [a - b for a, b in zip(left, others, strict=True)]
    value, parts = left[0], left[1:]
    g, centre = len(parts), statistics.fmean(parts)
    stderr = math.sqrt((g - 1) / g * sum((part - centre) ** 2 for part in parts))
    pairs = _paired([seed[0] for seed in seeds], base and [b.without(features)[0] for b in base])
    return _interval(value, two_sided_95(g - 1) * stderr, pairs)


def mean(
    models: Sequence[Images],
    base: Sequence[Images] | None,
    read: Callable[[Images], list[float]],
) -> Interval:
    """Mean over images, or how far it is above that of other models; arguments as of `distance`."""
    captions = models[0].captions
    values = [read(model) for model in models]
    others = None if base is None else [read(model) for model in base]
    gains = _mean_of(values)
    if others is not None:
        gains = [a - b for a, b in zip(gains, _mean_of(others), strict=True)]
    found = mean_interval(gains, captions)
    pairs = _paired([statistics.fmean(v) for v in values], _each_mean(others))
    return _interval(found.mean, found.high - found.mean, pairs)


def wins(models: Sequence[Images], base: Sequence[Images]) -> Interval:
    """Share of images, %, that the judge prefers to the base's; a tie counts half."""
    seeds = []
    for model in models:
        pairs = zip(model.columns["judge"], base[0].columns["judge"], strict=True)
        seeds.append([100.0 * (a > b) + 50.0 * (a == b) for a, b in pairs])
    found = mean_interval(_mean_of(seeds), models[0].captions)
    return _interval(found.mean, found.high - found.mean, [statistics.fmean(s) for s in seeds])


def diversity(models: Sequence[Images], base: Sequence[Images] | None) -> Interval:
    """Mean cosine distance of images of one caption x 1000; arguments as of `distance`.

    Of captions that have several photographs, in EfficientNet's features.
    """

    def spread(model: Images) -> list[float]:
        several = [i for i, c in enumerate(model.captions) if model.captions.count(c) > 1]
        features = torch.tensor([model.columns["efficientnet"][i] for i in several])
        found = pairwise_distances(features, [model.captions[i] for i in several])
        return [1000 * each for each in found]

    values = [spread(model) for model in models]
    others = None if base is None else [spread(model) for model in base]
    gains = _mean_of(values)
    if others is not None:
        gains = [a - b for a, b in zip(gains, _mean_of(others), strict=True)]
    found = mean_interval(gains)
    pairs = _paired([statistics.fmean(v) for v in values], _each_mean(others))
    return _interval(found.mean, found.high - found.mean, pairs)


def column(name: str) -> Callable[[Images], list[float]]:
    """A reader of a column."""
    return lambda images: images.columns[name]


def obeyed(images: Images) -> list[float]:
    """Per image the share, %, of the caption's four attributes that the regression finds."""
    found = zip(*(images.columns[name] for name in ATTRIBUTES), strict=True)
    return [100 * sum(each) / len(ATTRIBUTES) for each in found]


def faces(images: Images) -> list[float]:
    """Per image 100 where a face is detected, else 0."""
    return [100.0 * (score > 0) for score in images.columns["face"]]


def hue_drift(base: Images) -> Callable[[Images], list[float]]:
    """A reader of the degrees between an image's hue and the base's; 0 where one has none."""

    def read(images: Images) -> list[float]:
        pairs = zip(images.columns["hue"], base.columns["hue"], strict=True)
        return [0.0 if a is None or b is None else abs((a - b + 180) % 360 - 180) for a, b in pairs]

    return read


def _mean_of(seeds: Iterable[Sequence[float]]) -> list[float]:
    return [statistics.fmean(values) for values in zip(*seeds, strict=True)]


def _each_mean(seeds: Sequence[Sequence[float]] | None) -> list[float] | None:
    return None if seeds is None else [statistics.fmean(values) for values in seeds]


def _paired(values: list[float], base: list[float] | None) -> list[float]:
    """A value per training seed, less the base's where that has as many seeds."""
    if base is None or len(base) != len(values):
        return values
    return [a - b for a, b in zip(values, base, strict=True)]


def _interval(value: float, captions: float, seeds: Sequence[float]) -> Interval:
    half = captions
    if len(seeds) > 1:
        error = statistics.stdev(seeds) / math.sqrt(len(seeds))
        half = math.hypot(captions, two_sided_95(len(seeds) - 1) * error)
    return Interval(value, value - half, value + half)
