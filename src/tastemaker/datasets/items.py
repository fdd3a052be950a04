"""Items of a data source: what a format yields, what an import makes of each, and why not."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from tastemaker.core.errors import TastemakerError


class Located(Protocol):
    """Anything with a place in its source."""

    @property
    def where(self) -> str:
        """File, or file and row; unique within the source."""


Item = TypeVar("Item", bound=Located)


@dataclass(frozen=True)
class LeftOut:
    """An item of the source that is not in the pool.

    Args:
        where: Its place in the source.
        reason: Why it was left out, and the remedy.
    """

    where: str
    reason: str


@dataclass(frozen=True)
class Refused(LeftOut):
    """An item, or a file, that shows the source to be torn or of another format.

    It ends an import, which keeps what it has written; a check goes on.
    """

    def error(self) -> TastemakerError:
        """Return the error that ends an import."""
        return TastemakerError(f"{self.where}: {self.reason}")


@dataclass(frozen=True)
class Source(Generic[Item]):
    """A source of compared or captioned images.

    Args:
        files: The files it reads: one more, or one of other content, makes it another source. Going
            through them refuses what `items` gives as `Refused`, before any image is read.
        items: Its items in order, the same every time; `LeftOut` in the place of an item that
            cannot be read.
        passed_over: Files beside `files` that are not read, with the reason.
    """

    files: Iterable[Path]
    items: Iterator[Item | LeftOut]
    passed_over: Iterable[LeftOut] = ()


class Filtered(TastemakerError):
    """An item that an option keeps out of the pool: counted by reason, not listed row by row."""


@dataclass(frozen=True)
class Usable:
    """The candidates that an item became.

    Args:
        rows: Its candidates, with the scores that the source has.
        pictures: Hash of each candidate's pixels.
        once: Leave out the second of two items with a picture in common.
        notes: Changes of its pictures that are worth counting, one entry per change.
    """

    rows: tuple[dict[str, Any], ...]
    pictures: tuple[str, ...] = ()
    once: bool = False
    notes: tuple[str, ...] = ()


Convert = Callable[[Item, int], Usable]
"""From an item, and the number of those taken before it, to candidates.

Raises `Filtered` where an option keeps it out, another `TastemakerError` where it cannot be used.
"""


def counts_text(counts: Mapping[str, int], what: str = "dropped") -> str:
    """Format counts by reason, to append to a message.

    Example:
        >>> counts_text({"ties": 3})
        '; 3 dropped: ties'
    """
    return "".join(f"; {number} {what}: {reason}" for reason, number in counts.items())
