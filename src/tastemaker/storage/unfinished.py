"""Parts of files that a stopped command leaves for its next start."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any, TypeVar

Collected = TypeVar("Collected", bound=Collection[Any])

UNFINISHED = "unfinished"
"""Names of such files begin so; they go when their artifact is finished."""


@contextlib.contextmanager
def saved_when_stopped(
    path: Path, made: Collected, write: Callable[[Path, Collected], object]
) -> Iterator[None]:
    """Save what a block has collected so far where Ctrl-C or SIGTERM ends it.

    Args:
        path: The file to write.
        made: What the block adds to.
        write: Writes it there.
    """
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        if made:
            write(path, made)
        raise
