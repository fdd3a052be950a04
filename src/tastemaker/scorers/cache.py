"""Scores by what was scored: an image's bytes and its prompt, so that none is worked out twice."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tastemaker.core.errors import TastemakerError
from tastemaker.storage.artifact import finished_key
from tastemaker.storage.files import read_record
from tastemaker.storage.parquet import read_table
from tastemaker.storage.pool import Pool

CONTENT = "content"
"""Column of a scores file that says what was scored; files of earlier versions are without it."""


def content(image: bytes, prompt: str) -> bytes:
    """Hash what a scorer sees, 16 bytes.

    Args:
        image: The stored file's bytes: equal pictures in different files count as different.
        prompt: The candidate's prompt.
    """
    text = prompt.encode()
    digest = hashlib.blake2b(len(text).to_bytes(8, "little"), digest_size=16)
    digest.update(text)
    digest.update(image)
    return digest.digest()


def known_scores(file: Path, column: str) -> dict[bytes, float]:
    """Read a scores file by content; empty where it is without contents."""
    table = read_table(file)
    if CONTENT not in table.column_names:
        return {}
    keys, values = table[CONTENT].to_pylist(), table[column].to_pylist()
    return dict(zip(keys, values, strict=True))


def scores_elsewhere(pool: Pool, column: str, config: Mapping[str, Any]) -> dict[bytes, float]:
    """Read another pool's scores where the same scorer gave them.

    Args:
        pool: The other pool.
        column: Of the scores.
        config: Of their artifact; the pool in it does not matter.

    Returns:
        Scores by content; empty where the pool has none of this very scorer, options and precision.

    Raises:
        TastemakerError: The pool does not exist.
    """
    finished_key(pool.folder)
    folder = pool.folder / "scores" / column
    if column not in pool.scorers():
        return {}
    try:
        held = read_record(folder / "artifact.json", config=dict)["config"]
    except TastemakerError:  # imported verdicts are of no scorer
        return {}
    if {**held, "pool": None} != {**config, "pool": None}:
        return {}
    found: dict[bytes, float] = {}
    for shard in pool.shards():
        found |= known_scores(pool.score_file(column, shard), column)
    return found
