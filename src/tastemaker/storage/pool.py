"""Pool: a folder of candidates in parquet shards, and their scores."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tastemaker.core.errors import TastemakerError
from tastemaker.storage.artifact import DONE_FILE, finished_key
from tastemaker.storage.files import read_record
from tastemaker.storage.parquet import read_table, whole_parquet
from tastemaker.storage.unfinished import UNFINISHED

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Pool:
    """A folder of candidates: image shards, and one file of scores per scorer and shard.

    Args:
        folder: The folder, made by `generate` or by an import.
    """

    folder: Path

    def shard(self, index: int) -> Path:
        """Return the path of one image shard."""
        return self.folder / f"candidates-{index:05d}.parquet"

    def unfinished(self, index: int) -> Path:
        """Return the path of what a stopped command made of one image shard."""
        return self.folder / f"{UNFINISHED}-{index:05d}.parquet"

    def shards(self) -> list[Path]:
        """Return the image shards in order.

        Raises:
            TastemakerError: There is none, or one that the pool had when it was finished is missing
                or truncated.
        """
        if (self.folder / DONE_FILE).is_file():
            finished_key(self.folder)
        found = sorted(self.folder.glob("candidates-*.parquet"))
        if not found:
            raise TastemakerError(f"{self.folder} has no candidates; run `generate` first.")
        return found

    @property
    def left_out(self) -> Path:
        """Items that an import could not use: per JSON line `where` and `reason`."""
        return self.folder / "left_out.jsonl"

    def score_file(self, scorer: str, shard: Path) -> Path:
        """Return the path of one scorer's scores of one image shard."""
        return self.folder / "scores" / scorer / shard.name.replace("candidates", "scores")

    def scorers(self) -> list[str]:
        """Return the scorers that have scored this pool to the end."""
        folders = sorted((self.folder / "scores").glob("*"))
        return [path.name for path in folders if (path / "done.json").is_file()]

    def is_partial(self, scorer: str) -> bool:
        """Return True for a column in which candidates may have no score: one of votes."""
        return bool(read_record(self.folder / "scores" / scorer / DONE_FILE).get("partial"))

    def require(self, candidates: int) -> None:
        """Count the rows of all shards.

        Args:
            candidates: How many there must be.

        Raises:
            TastemakerError: A shard is missing, or has more or fewer rows than it should.
        """
        import pyarrow.parquet as pq

        found = 0
        for index, shard in enumerate(self.shards()):
            if shard != self.shard(index):
                raise TastemakerError(
                    f"{self.shard(index)} is missing; run the same command again."
                )
            with whole_parquet(shard):
                found += pq.read_metadata(shard).num_rows
        if found != candidates:
            raise TastemakerError(
                f"{self.folder} has {found} candidates, not {candidates}; do the processes share"
                " its disk? Delete it and run the same command again."
            )

    def candidates(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Read candidates of all shards, in order."""
        import pyarrow as pa

        return pa.concat_tables([read_table(shard, columns) for shard in self.shards()])

    def scores(self) -> pa.Table:
        """Read prompts, ids and every scorer's column, one row per candidate, in pool order.

        A score of a partial column is null where there is none.

        Raises:
            TastemakerError: Scores and candidates do not belong together.
        """
        import pyarrow as pa

        return pa.concat_tables(self.scored_shards())

    def scored_shards(self) -> Iterator[pa.Table]:
        """Read the rows of `scores`, one shard after the other.

        Raises:
            TastemakerError: Scores and candidates do not belong together, or a score is not a
                finite number.
        """
        columns = ("candidate_id", "prompt_id", "prompt", "seed", "source", "source_id")
        scorers = self.scorers()
        partial = {name for name in scorers if self.is_partial(name)}
        for shard in self.shards():
            table = read_table(shard, columns)
            for scorer in scorers:
                scored = read_table(self.score_file(scorer, shard), ("candidate_id", scorer))
                if not scored["candidate_id"].equals(table["candidate_id"]):
                    raise TastemakerError(
                        f"scores of {scorer!r} in {self.folder} belong to other candidates;"
                        f" delete {self.folder / 'scores' / scorer} and score again."
                    )
                if not _finite(scored[scorer], scorer in partial):
                    raise TastemakerError(
                        f"{self.score_file(scorer, shard)} has a score that is not a finite number;"
                        f" delete {self.folder / 'scores' / scorer} and score again."
                    )
                table = table.append_column(scorer, scored[scorer])
            yield table


def _finite(scores: pa.ChunkedArray, partial: bool) -> bool:
    """True if a column has a finite number in every row, of a partial one if it has one at all."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not pa.types.is_floating(scores.type):
        return False
    finite = pc.all(pc.is_finite(scores), skip_nulls=partial, min_count=0)
    return bool(finite.as_py())
