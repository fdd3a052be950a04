"""Splits of a source by prompt, without a prompt in common."""

from __future__ import annotations

import itertools

from tastemaker.config.datasets import SplitConfig
from tastemaker.core.seeding import keyed_seed

_SEEDS = 2**63


def part_of(prompt: str, split: SplitConfig) -> int:
    """Return the part of a prompt: by its hash alone, independent of the rest of the source.

    Case and the length of spaces do not count.

    Args:
        prompt: Any text.
        split: Shares of the parts, and the seed.

    Returns:
        Index of the part. Of many prompts each part gets about its share.

    Example:
        >>> split = SplitConfig(of=(0.9, 0.1))
        >>> part_of("A cat", split) == part_of(" a  cat ", split)
        True
    """
    same = " ".join(prompt.casefold().split())
    place = keyed_seed(split.seed, "split", same) / _SEEDS * sum(split.of)
    ends = itertools.accumulate(split.of)
    return next((part for part, end in enumerate(ends) if place < end), len(split.of) - 1)
