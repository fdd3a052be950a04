"""Randomness keyed by what it is for, so that results do not depend on order, batch or process.

Every random number of a run comes from `(seed, what, item, draw)`: hashed to a 63-bit integer that
seeds a generator of its own. Batch size, resume point and number of processes do not enter.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def keyed_seed(*key: int | str) -> int:
    """Hash a key to a seed.

    Args:
        *key: Integers and strings, in an order that the caller fixes.

    Returns:
        An integer in `[0, 2**63)`, the same on every machine.

    Example:
        >>> keyed_seed(0, "candidate", "a dog", 3) == keyed_seed(0, "candidate", "a dog", 3)
        True
        >>> keyed_seed(0, "1") == keyed_seed(0, 1)
        False
    """
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in key)
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def keyed_generator(*key: int | str) -> torch.Generator:
    """Make a CPU generator seeded by `keyed_seed(*key)`.

    Draws are made on the CPU and moved, so that a GPU run sees the noise of a CPU run.

    Args:
        *key: As for `keyed_seed`.

    Returns:
        A generator that nobody else shares.
    """
    import torch

    return torch.Generator("cpu").manual_seed(keyed_seed(*key))
