"""Filters of imports and pairs: by the prompt's length, words and split, and by image size."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tastemaker.config.datasets import ImageFilters, PromptFilters, SplitConfig
from tastemaker.core.errors import TastemakerError
from tastemaker.core.reading import read_lines
from tastemaker.datasets.splits import part_of
from tastemaker.storage.files import config_key

Reasons = Callable[[str], str | None]
"""From a prompt to why it is dropped, or None."""


def prompt_reasons(filters: PromptFilters, split: SplitConfig | None = None) -> Reasons:
    """Prepare the filters of prompts.

    Args:
        filters: Conditions on a prompt.
        split: Parts, and the one to take; None takes all.

    Returns:
        A function from a prompt to the reason why it is dropped; None where it is kept.

    Raises:
        TastemakerError: A word list cannot be read, or is empty.

    Example:
        >>> reasons = prompt_reasons(PromptFilters(max_words=3, without=("dog",)))
        >>> reasons("a Dog"), reasons("two black and white cats"), reasons("hotdogs")
        ("prompts with a word of 'without'", 'prompts of more than 3 words', None)
    """
    without, having = (_finder(filters, name) for name in ("without", "having"))

    def reason(prompt: str) -> str | None:
        if split is not None and part_of(prompt, split) != split.take:
            return "prompts in other parts of the split"
        number = len(prompt.split())
        if filters.min_words is not None and number < filters.min_words:
            return f"prompts of fewer than {filters.min_words} words"
        if filters.max_words is not None and number > filters.max_words:
            return f"prompts of more than {filters.max_words} words"
        if without is not None and without.search(prompt):
            return "prompts with a word of 'without'"
        if having is not None and not having.search(prompt):
            return "prompts without any word of 'having'"
        return None

    return reason


def size_reason(filters: ImageFilters, sizes: Sequence[tuple[int, int]]) -> str | None:
    """Return why images of an item are dropped for their sizes.

    Args:
        filters: Conditions on an image.
        sizes: Width and height of each image.

    Returns:
        The reason, or None where all are kept.

    Example:
        >>> size_reason(ImageFilters(max_aspect=2), [(300, 100)])
        'images longer than 2 times their shorter side'
    """
    short = min(min(size) for size in sizes)
    if filters.min_side is not None and short < filters.min_side:
        return f"images with a side of less than {filters.min_side} pixels"
    aspect = max(max(size) / min(size) for size in sizes)
    if filters.max_aspect is not None and aspect > filters.max_aspect:
        return f"images longer than {filters.max_aspect:g} times their shorter side"
    return None


def words_key(filters: PromptFilters) -> str:
    """Hash the words of the lists: a file that changed makes another stage."""
    return config_key([list(_words(getattr(filters, name))) for name in ("without", "having")])


def _finder(filters: PromptFilters, name: str) -> re.Pattern[str] | None:
    given = getattr(filters, name)
    if given is None:
        return None
    words = [r"\s+".join(map(re.escape, word.split())) for word in _words(given)]
    if not words:
        raise TastemakerError(f"the word list {name}={given!r} is empty; add one word per line.")
    return re.compile(rf"(?<!\w)(?:{'|'.join(words)})(?!\w)", re.IGNORECASE)


def _words(given: str | tuple[str, ...] | None) -> Iterator[str]:
    lines = read_lines(Path(given)) if isinstance(given, str) else given or ()
    return (word for line in lines if (word := line.strip()))
