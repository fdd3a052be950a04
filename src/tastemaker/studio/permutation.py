"""Pseudorandom permutations of ranges of any size, in constant memory."""

from __future__ import annotations

import hashlib

ROUNDS = 8


class Permutation:
    """A keyed permutation of `range(size)`: a Feistel network of hashes with cycle walking.

    Nothing is stored but the key, so that the pairs of a hundred thousand images, which are five
    thousand million, can be shown in random order without repetition.

    Args:
        size: Length of the range, 1 or more.
        key: Any text or bytes; equal keys give equal permutations.

    Example:
        >>> order = Permutation(5, "seed")
        >>> sorted(map(order, range(5)))
        [0, 1, 2, 3, 4]
        >>> order.inverse(order(3))
        3
    """

    def __init__(self, size: int, key: str | bytes) -> None:
        self.size = size
        self._half = max(2, ((size - 1).bit_length() + 1) // 2)
        self._mask = (1 << self._half) - 1
        self._key = hashlib.sha256(key.encode() if isinstance(key, str) else key).digest()

    def __call__(self, index: int) -> int:
        """Return the element at a place.

        Args:
            index: In `range(size)`.
        """
        while True:
            left, right = index >> self._half, index & self._mask
            for number in range(ROUNDS):
                left, right = right, left ^ self._hashed(number, right)
            index = left << self._half | right
            if index < self.size:
                return index

    def inverse(self, element: int) -> int:
        """Return the place of an element.

        Args:
            element: In `range(size)`.
        """
        while True:
            left, right = element >> self._half, element & self._mask
            for number in reversed(range(ROUNDS)):
                left, right = right ^ self._hashed(number, left), left
            element = left << self._half | right
            if element < self.size:
                return element

    def _hashed(self, number: int, value: int) -> int:
        data = bytes([number]) + value.to_bytes((self._half + 7) // 8, "big")
        digest = hashlib.blake2b(data, key=self._key).digest()
        return int.from_bytes(digest, "big") & self._mask
