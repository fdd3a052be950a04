"""Parts of shards that a stopped command leaves for its next start."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from tastemaker.storage.parquet import write_table

if TYPE_CHECKING:
    import pyarrow as pa

Collected = TypeVar("Collected", bound=Collection[Any])

UNFINISHED = "unfinished"
"""Names of such files begin so; they go when their artifact is finished."""


@contextlib.contextmanager
def saved_when_stopped(
    path: Path, made: Collected, table: Callable[[Collected], pa.Table]
) -> Iterator[None]:
    """Save what a block has collected so far where Ctrl-C or SIGTERM ends it.

    Args:
        path: The parquet file to write.
        made: What the block adds to.
        table: Turns it into a table.
    """
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        if made:
            write_table(path, table(made))
        raise
