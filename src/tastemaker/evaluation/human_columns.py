"""Votes as columns of a pool's scores: each image's strength among those of its prompt."""

from __future__ import annotations

import shutil
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from tastemaker.core.errors import TastemakerError
from tastemaker.core.values import checked_name
from tastemaker.datasets.verdicts import Verdict
from tastemaker.metrics.bradley_terry import Comparison, compared
from tastemaker.storage.artifact import DONE_FILE, Artifact, finished_key
from tastemaker.storage.files import config_key, read_record
from tastemaker.storage.locks import ARTIFACT_FILE
from tastemaker.storage.parquet import read_table, write_table
from tastemaker.storage.votes import file_stem

if TYPE_CHECKING:
    from tastemaker.storage.pool import Pool

COMMAND = "votes"


def add_human_columns(verdicts: Iterable[Verdict], pool: Pool, column: str) -> dict[str, int]:
    """Add people's votes to a pool: a column of all votes, and one per voter.

    An image's score is its Bradley-Terry strength among the voted images of its prompt, in
    log-odds, mean 0 (`metrics.bradley_terry.strengths`): twice preferred is more than once. Images
    that tie have equal scores, so that no rule pairs them; images that nobody voted on have none.

    Columns of earlier votes are made again where votes were added.

    Args:
        verdicts: Of people, on one question; those on other images are passed over.
        pool: A finished pool.
        column: Name of the column of all votes; `COLUMN_VOTER` has those of one voter.

    Returns:
        Number of scored images per column.

    Raises:
        TastemakerError: No vote is on two images of the pool, or a column of that name is not of
            votes.
    """
    key = finished_key(pool.folder)
    held = {name for shard in pool.shards() for name in _ids(shard)}
    mine = [each for each in verdicts if each.first in held and each.second in held]
    if not mine:
        raise TastemakerError(
            f"no vote is on images of {pool.folder}; name the pool that the study was made from."
        )
    columns = {column: mine} | {
        voter_column(column, voter): [each for each in mine if each.voter == voter]
        for voter in sorted({each.voter for each in mine})
    }
    for name in columns:
        _refuse_others(pool, name)
    return {name: _write(pool, key, name, of) for name, of in columns.items()}


def voter_column(column: str, voter: str) -> str:
    """Name the column of one voter: by the voter, or by the file where no column can be so named.

    Example:
        >>> voter_column("human", "Ada"), voter_column("human", "a/b")
        ('human_Ada', 'human_a-b-...')
    """
    try:
        return checked_name(f"{column}_{voter}")
    except ValueError:
        return checked_name(f"{column}_{file_stem(voter)}")


def human_strengths(verdicts: Iterable[Verdict]) -> dict[str, float]:
    """Return the strength of every voted image among those of its prompt, by candidate id."""
    prompts: dict[str, list[Comparison]] = defaultdict(list)
    for each in verdicts:
        prompts[each.prompt].append(
            Comparison(each.first, each.second, each.score, each.prompt, each.voter)
        )
    strengths: dict[str, float] = {}
    for comparisons in prompts.values():
        names = dict.fromkeys(side for each in comparisons for side in each[:2])
        strengths |= compared(names, comparisons)
    return strengths


def _write(pool: Pool, key: str, name: str, verdicts: list[Verdict]) -> int:
    import pyarrow as pa

    said = sorted([each.where, each.first, each.second, each.score] for each in verdicts)
    folder = pool.folder / "scores" / name
    artifact = Artifact(folder, COMMAND, {"pool": key, "votes": config_key(said)})
    if _record(folder).get("key") not in {None, artifact.key}:
        shutil.rmtree(folder)
    strengths = human_strengths(verdicts)
    with artifact.claimed() as unfinished:
        if unfinished:
            for shard in pool.shards():
                ids = _ids(shard)
                values = pa.array([strengths.get(each) for each in ids], pa.float32())
                write_table(
                    pool.score_file(name, shard), pa.table({"candidate_id": ids, name: values})
                )
            artifact.finish(scorer=name, images=len(strengths), partial=True)
    return len(strengths)


def _refuse_others(pool: Pool, name: str) -> None:
    folder = pool.folder / "scores" / name
    command = _record(folder).get("command")
    if command != COMMAND and (command is not None or (folder / DONE_FILE).exists()):
        raise TastemakerError(
            f"{pool.folder} has a column {name!r} that is not of votes; name another: column=..."
        )


def _record(folder: Any) -> Mapping[str, Any]:
    file = folder / ARTIFACT_FILE
    return read_record(file, key=str, command=str) if file.is_file() else {}


def _ids(shard: Any) -> list[str]:
    names: list[str] = read_table(shard, ("candidate_id",))["candidate_id"].to_pylist()
    return names
