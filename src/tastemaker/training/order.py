"""Order of samples: each epoch a permutation, the samples of an optimizer step of one bucket.

Which item a sample has depends on the seed and its number in the run alone. The work for a
micro-batch does not grow with the data: permutations are made once per epoch.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from itertools import accumulate

import torch

from tastemaker.core.seeding import keyed_generator


def pair_index(draw: int, pairs: int, seed: int) -> int:
    """Return the index of the pair of the run's `draw`-th sample; each epoch is a permutation.

    Args:
        draw: Number of the sample in the run, from 0.
        pairs: Number of pairs.
        seed: The run's seed.

    Returns:
        An index below `pairs`.
    """
    epoch, position = divmod(draw, pairs)
    return int(_permutation(pairs, seed, "order", epoch)[position])


def bucketed_indices(
    draws: Sequence[int], sizes: tuple[int, ...], step: int, seed: int
) -> list[tuple[int, int]]:
    """Return bucket and index in it of samples, so that those of a step share a bucket.

    Each epoch shuffles every bucket, cuts it into steps, the last filled up from the bucket's
    beginning, and shuffles the steps. How a step is cut into batches does not enter.

    Args:
        draws: Numbers of the samples in the run, from 0.
        sizes: Pairs of each bucket; where one alone has any, the indices are `pair_index`.
        step: Samples per optimizer step, in all processes.
        seed: The run's seed.

    Returns:
        Per sample a bucket's number, and an index below its size.
    """
    filled = [bucket for bucket, size in enumerate(sizes) if size]
    if len(filled) == 1:
        return [(filled[0], pair_index(draw, sizes[filled[0]], seed)) for draw in draws]
    ends = list(accumulate(-(-size // step) for size in sizes))
    found = []
    for draw in draws:
        epoch, position = divmod(draw, ends[-1] * step)
        steps, *orders = _epoch(sizes, ends[-1], seed, epoch)
        place = int(steps[position // step])
        bucket = next(number for number, end in enumerate(ends) if place < end)
        first = place - (ends[bucket - 1] if bucket else 0)
        index = (first * step + position % step) % sizes[bucket]
        found.append((bucket, int(orders[bucket][index])))
    return found


@functools.lru_cache(maxsize=2)
def _permutation(length: int, seed: int, *key: int | str) -> torch.Tensor:
    """A permutation of [0, length), 4 bytes per item."""
    return torch.randperm(length, generator=keyed_generator(seed, *key), dtype=torch.int32)


@functools.lru_cache(maxsize=2)
def _epoch(sizes: tuple[int, ...], steps: int, seed: int, epoch: int) -> list[torch.Tensor]:
    """The permutation of an epoch's steps, then that of each bucket."""
    uncached = _permutation.__wrapped__
    orders = [uncached(size, seed, "order", epoch, bucket) for bucket, size in enumerate(sizes)]
    return [uncached(steps, seed, "steps", epoch), *orders]
