"""Sequences and streams in consecutive parts, and work on parts in threads."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain, islice
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


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


def overlapped(
    work: Callable[[Item], Result], items: Iterable[Item], threads: int = 2
) -> Iterator[Result]:
    """Yield `work(item)` in order, computed in threads while the next items are made.

    Where Ctrl-C or SIGTERM ends the making of items, what was made before is yielded first.

    Args:
        work: Called in a thread; its error is raised here, in its item's turn.
        items: Iterated in the calling thread, at most `threads` ahead of what was yielded.
        threads: Items in work at once; 0: all is computed here, in turn.

    Yields:
        The results.

    Example:
        >>> list(overlapped(abs, [-1, -2, -3]))
        [1, 2, 3]
    """
    if not threads:
        yield from map(work, items)
        return
    pool = ThreadPoolExecutor(threads)
    pending: deque[Future[Result]] = deque()
    try:
        try:
            for item in items:
                pending.append(pool.submit(work, item))
                if len(pending) > threads or pending[0].done():
                    yield pending.popleft().result()
        except (KeyboardInterrupt, SystemExit):
            yield from (each.result() for each in pending)
            raise
        yield from (each.result() for each in pending)
    finally:
        pool.shutdown(cancel_futures=True)
