"""Sets of images that are judged together, numbered so that none has to be stored."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple


class Shape(NamedTuple):
    """Arrangement of a group's images: any of one row may be judged together.

    Attributes:
        rows: 1 for the candidates of a prompt; draws of one prompt by several models otherwise.
        width: Images of a row.
    """

    rows: int
    width: int


class Units:
    """All sets of `images` of one row, over all groups: a sequence that is computed.

    Args:
        shapes: Of each group.
        images: Images of a set; a shorter row is a set of its own.
        fewest: Images that a set must have; shorter rows have none.

    Example:
        >>> units = Units([Shape(1, 3), Shape(2, 2)], 2)
        >>> [units[number] for number in range(units.total)]
        [(0, (0, 1)), (0, (0, 2)), (0, (1, 2)), (1, (0, 1)), (1, (2, 3))]
    """

    def __init__(self, shapes: Sequence[Shape], images: int, fewest: int | None = None) -> None:
        fewest = images if fewest is None else fewest
        self._shapes = shapes
        self._images = [min(images, each.width) if each.width >= fewest else 0 for each in shapes]
        counts = (
            each.rows * math.comb(each.width, number) if number else 0
            for each, number in zip(shapes, self._images, strict=True)
        )
        self._ends = list(accumulate(counts))

    @property
    def total(self) -> int:
        """Number of sets: more than `len` may return."""
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, number: int) -> tuple[int, tuple[int, ...]]:
        """Return the group of a set, and the places of its images in the group, rising.

        Args:
            number: In `range(total)`.
        """
        group = bisect_right(self._ends, number)
        within = number - (self._ends[group - 1] if group else 0)
        width, images = self._shapes[group].width, self._images[group]
        row, rank = divmod(within, math.comb(width, images))
        return group, tuple(row * width + place for place in combination(rank, images, width))


def combination(rank: int, size: int, width: int) -> tuple[int, ...]:
    """Return a subset of `range(width)` by its rank in the order of largest elements.

    Args:
        rank: In `range(comb(width, size))`.
        size: Elements of the subset.
        width: Elements to choose from.

    Returns:
        The elements, rising.

    Example:
        >>> [combination(rank, 2, 4) for rank in range(6)]
        [(0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3)]
    """
    found = []
    for left in range(size, 0, -1):
        low, high = left - 1, width - 1  # the largest with comb(low, left) <= rank
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if math.comb(middle, left) <= rank else (low, middle - 1)
        found.append(low)
        rank -= math.comb(low, left)
    return tuple(reversed(found))
