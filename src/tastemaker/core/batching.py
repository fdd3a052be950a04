"""Cut a sequence or a stream into consecutive parts (Python 3.11 has no `itertools.batched`)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain, islice
from typing import TypeVar

Item = TypeVar("Item")


def batched(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    """Yield consecutive parts of at most `size` items.

    Args:
        items: Anything that can be sliced.
        size: Length of all parts but the last; 1 or more.

    Yields:
        The parts, in order.

    Example:
        >>> list(batched([1, 2, 3], 2))
        [[1, 2], [3]]
    """
    for start in range(0, len(items), size):
        yield items[start : start + size]


def streamed(items: Iterator[Item], size: int) -> Iterator[Iterator[Item]]:
    """Yield consecutive parts of a stream without holding them; read each before the next.

    Args:
        items: Any iterator.
        size: Length of all parts but the last; 1 or more.

    Yields:
        The parts, in order.

    Example:
        >>> [list(part) for part in streamed(iter("abc"), 2)]
        [['a', 'b'], ['c']]
    """
    for first in items:
        yield chain([first], islice(items, size - 1))
