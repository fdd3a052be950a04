"""Sets of images that may be compared: equal numbers, and equal captions where they are known."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from tastemaker.core.seeding import keyed_generator

Rows = list[int]


class EqualSets(NamedTuple):
    """Rows of a model's images and of two halves of the real ones, equally many of each.

    Attributes:
        drawn: Rows of the model's images.
        real: Rows of the half of the real images to measure them against.
        others: Rows of the other half; its distance to `real` is that of equal laws.
        matched: True where `drawn` and `real` have every caption equally often.
    """

    drawn: Rows
    real: Rows
    others: Rows
    matched: bool


def equal_sets(drawn: Sequence[str], real: Sequence[str], seed: int = 0) -> EqualSets:
    """Choose images for a distance whose bias depends on their number, as the Frechet distance's.

    The real images are split in two halves, each caption as evenly as can be. Where at least half
    of the drawn images have the caption of a real one, those of equal captions are taken from
    both sides; elsewhere equally many are taken by chance.

    Args:
        drawn: The caption of each of a model's images.
        real: The caption of each real image.
        seed: Seed of the split.

    Returns:
        Rows; models with equal captions get equal rows.

    Example:
        >>> sets = equal_sets(["a", "a", "b"], ["a", "a", "b", "b"])
        >>> len(sets.drawn), len(sets.real), len(sets.others), sets.matched
        (2, 2, 2, True)
    """
    order = _shuffled(len(real), seed)
    place = {caption: i for i, caption in enumerate(dict.fromkeys(real[row] for row in order))}
    order.sort(key=lambda row: place[real[row]])
    half, others = order[::2], order[1::2]
    matched = captions_match(drawn, real)
    rows = _shuffled(len(drawn), seed)
    if matched:
        rows, half = pick_equal(drawn, real, rows, half)
    number = min(len(rows), len(half), len(others))
    return EqualSets(rows[:number], half[:number], others[:number], matched)


def captions_match(drawn: Sequence[str], real: Sequence[str]) -> bool:
    """Return True where at least half of the drawn images have the caption of a real one."""
    known = set(real)
    return 2 * sum(caption in known for caption in drawn) >= len(drawn)


def pick_equal(
    drawn: Sequence[str], real: Sequence[str], drawn_rows: Rows, real_rows: Rows
) -> tuple[Rows, Rows]:
    """Keep as many rows of each caption as both sides have, in an order that pairs captions.

    Args:
        drawn: The caption of each of a model's images.
        real: The caption of each real image.
        drawn_rows: Rows of `drawn` to choose from.
        real_rows: Rows of `real` to choose from.

    Returns:
        Two lists of equal length; the captions at one place are equal.
    """
    waiting: dict[str, Rows] = defaultdict(list)
    for row in drawn_rows:
        waiting[drawn[row]].append(row)
    taken: Counter[str] = Counter()
    pairs = []
    for row in real_rows:
        caption = real[row]
        if taken[caption] < len(waiting[caption]):
            pairs.append((waiting[caption][taken[caption]], row))
            taken[caption] += 1
    return [pair[0] for pair in pairs], [pair[1] for pair in pairs]


def _shuffled(number: int, seed: int) -> Rows:
    import torch

    order: Rows = torch.randperm(number, generator=keyed_generator(seed, "equal sets")).tolist()
    return order
