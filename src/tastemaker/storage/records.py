"""Results on disk: pools of candidates, scores, pairs, runs.

Everything is parquet, JSON or safetensors; files appear whole or not at all; no pickle anywhere.
Every path that a command writes is named here and nowhere else.
"""

from __future__ import annotations

import contextlib
import os
import reprlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tastemaker.core.content_hash import file_content, files_below
from tastemaker.core.errors import TastemakerError
from tastemaker.core.hardware import everywhere, from_main_process, is_main_process
from tastemaker.core.reading import parse_yaml, read_yaml
from tastemaker.core.registry import plugin_code
from tastemaker.storage.files import (
    config_key,
    damaged,
    read_json,
    read_record,
    read_rows,
    read_table,
    whole_parquet,
    write_json,
    write_rows,
    write_text,
)
from tastemaker.storage.locks import LOCK, STAGE_FILE, exclusive, still_held

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Stage:
    """Output folder of a command: its configuration, and whether it is finished.

    Args:
        folder: Where the command writes.
        room: The command's name, for messages.
        config: The resolved configuration and the keys of the inputs, JSON-like.
    """

    folder: Path
    room: str
    config: dict[str, Any]

    def __post_init__(self) -> None:
        """Add the code of plugins that the configuration names: another code, another stage."""
        if code := plugin_code(set(_texts(self.config))):
            object.__setattr__(self, "config", {**self.config, "plugins": code})

    @property
    def key(self) -> str:
        """The hash that identifies this stage's results."""
        return config_key(self.room, self.config)

    @property
    def finished(self) -> bool:
        """Whether the command ended here before, with this very configuration and all its files."""
        marker = self.folder / DONE_FILE
        if not marker.is_file() or read_record(marker, key=str)["key"] != self.key:
            return False
        return not _amiss(self.folder, whole=True)

    @contextlib.contextmanager
    def claimed(self) -> Iterator[bool]:
        """Have the folder to write in, alone; call before anything is written there.

        A claim is undone where the block ends in an error before it wrote a result: the corrected
        command then takes the folder. All processes of a launch enter together.

        Yields:
            Whether there is work to do; False where the command ended here before.

        Raises:
            TastemakerError: The folder holds the work of another configuration or of nobody, or
                another command is writing there.
        """
        if from_main_process(self._is_done):
            if from_main_process(lambda: (self.folder / LOCK).exists()):
                with exclusive(self.folder):  # killed between its last file and its end
                    pass
            yield False
            return
        with exclusive(self.folder):
            from_main_process(self._claim)
            try:
                yield True
            except BaseException:
                if is_main_process() and not _results(self.folder):
                    (self.folder / STAGE_FILE).unlink(missing_ok=True)
                raise
            everywhere(True)  # a barrier: the next command reads what the main process finished

    def _is_done(self) -> bool:
        self._refuse_others()
        return self.finished

    def _refuse_others(self) -> None:
        marker = self.folder / STAGE_FILE
        if not marker.is_file():
            return
        held = read_record(marker, key=str, config=dict)
        if held["key"] != self.key:
            raise TastemakerError(
                f"{self.folder} was made by another configuration"
                f" ({_first_difference(held['config'], self.config)})."
                " Choose another name or output, or delete the folder."
            )

    def _claim(self) -> None:
        self._refuse_others()
        if not (self.folder / STAGE_FILE).is_file():
            if others := _results(self.folder):
                raise TastemakerError(
                    f"{self.folder} holds {others[0].name} and no {STAGE_FILE} that says what it is"
                    " of; choose another output, or delete the folder."
                )
            about = {"room": self.room, "key": self.key, "config": self.config}
            write_json(self.folder / STAGE_FILE, about)
        elif (self.folder / DONE_FILE).is_file():
            for file, why in _amiss(self.folder, whole=True).items():
                print(f"{file} {why}; it is made again.")
                file.unlink(missing_ok=True)
            (self.folder / DONE_FILE).unlink()

    def finish(self, **summary: Any) -> None:
        """Mark the command as ended, with the size and hash of every file that it made.

        Args:
            **summary: Counts worth keeping, JSON-like.

        Raises:
            TastemakerError: The folder was moved or deleted while the command ran.
        """
        if not is_main_process():
            return
        if not still_held(self.folder):
            raise TastemakerError(
                f"{self.folder} was moved, deleted or taken by another command while this one ran;"
                " put it back, or delete what is there, and run the same command again."
            )
        files = {
            file.relative_to(self.folder).as_posix(): {
                "bytes": file.stat().st_size,
                "content": file_content(file),
            }
            for file in _results(self.folder)
            if not MADE_ALONG & set(file.relative_to(self.folder).parts)
        }
        held = {"room": self.room, "key": self.key, **summary, "files": files}
        write_json(self.folder / DONE_FILE, held)


def _texts(value: Any) -> Iterator[str]:
    """All texts of a JSON-like value, keys aside."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for held in value.values():
            yield from _texts(held)
    elif isinstance(value, list | tuple):
        for held in value:
            yield from _texts(held)


DONE_FILE = "done.json"

MADE_ALONG = {
    "cache.safetensors",
    "checkpoints",
    "credit.json",
    "credit.jsonl",
    "metrics.jsonl",
    "validation",
}
"""Files and folders that no later command needs: who deletes them has a finished stage still."""

_NO_RESULTS = {STAGE_FILE, DONE_FILE, "left_out.jsonl", "logs"}


def _results(folder: Path) -> list[Path]:
    """The files that a command made in its folder, and with them what others made below it."""
    if not folder.is_dir():
        return []
    return [
        file
        for file in files_below(folder)
        if not _NO_RESULTS & set(file.relative_to(folder).parts) and file.stat().st_size
    ]


def _amiss(folder: Path, *, whole: bool) -> dict[Path, str]:
    """What is wrong with the files of a finished stage, by file.

    Args:
        folder: Its folder.
        whole: Compare contents too, not sizes alone.
    """
    wrong = {}
    held = read_record(folder / DONE_FILE, key=str).get("files", {})
    for name, about in held.items() if isinstance(held, dict) else ():
        file = folder / name
        expected = about if isinstance(about, dict) else {}
        if not file.is_file():
            wrong[file] = "is missing"
        elif file.stat().st_size != expected.get("bytes"):
            wrong[file] = "is truncated, or not the file that was made here"
        elif whole and file_content(file) != expected.get("content"):
            wrong[file] = "is damaged, or not the file that was made here"
    return wrong


def finished_key(folder: Path, *, whole: bool = False) -> str:
    """Return the key of a finished stage, as an input of the next.

    Args:
        folder: Its folder.
        whole: Compare the contents of its files too, not their sizes alone; for files without
            checksums of their own.

    Raises:
        TastemakerError: The folder does not exist, its command did not end, or one of its files is
            missing or damaged.
    """
    marker = folder / DONE_FILE
    if not marker.is_file():
        state = "is not finished" if folder.is_dir() else "does not exist"
        raise TastemakerError(f"{folder} {state}; run the command that makes it first.")
    for file, why in _amiss(folder, whole=whole).items():
        raise TastemakerError(
            f"{file} {why}; run the command that made {folder} again, which makes what is missing,"
            " or put the file back."
        )
    return str(read_record(marker, key=str)["key"])


CUTS = {"batch_size", "gradient_accumulation", "device"}
"""Keys that say how work is cut and where it is done. Where results depend on them, stages say."""


def _uncut(config: Any) -> Any:
    """A run's configuration as far as it is another run's with other values."""
    if not isinstance(config, dict):
        return config
    return {key: _uncut(value) for key, value in config.items() if key not in CUTS}


def _first_difference(old: Any, new: Any, where: str = "") -> str:
    if isinstance(old, dict) and isinstance(new, dict):
        for name in sorted({*old, *new}):
            if old.get(name) != new.get(name):
                path = f"{where}.{name}" if where else name
                if name in {"content", "revision"} and old.get(name) and new.get(name):
                    what = new.get("model") or new.get("path") or where
                    return f"{where}: the {name} of {what} is another than before"
                return _first_difference(old.get(name), new.get(name), path)
    return f"{where or 'key'}: {reprlib.repr(old)} there, {reprlib.repr(new)} now"


@dataclass(frozen=True)
class Pool:
    """A folder of candidates: image shards, and one scores file a scorer and shard.

    Args:
        folder: The folder, made by `generate` or by an import.
    """

    folder: Path

    def shard(self, index: int) -> Path:
        """Return the path of one image shard."""
        return self.folder / f"candidates-{index:05d}.parquet"

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
            raise TastemakerError(f"{self.folder} holds no candidates; run `generate` first.")
        return found

    @property
    def left_out(self) -> Path:
        """What an import could not use, a JSON line each with `where` and `reason`."""
        return self.folder / "left_out.jsonl"

    def score_file(self, scorer: str, shard: Path) -> Path:
        """Return the path of one scorer's scores of one image shard."""
        return self.folder / "scores" / scorer / shard.name.replace("candidates", "scores")

    def scorers(self) -> list[str]:
        """Return the scorers that have scored this pool to the end."""
        folders = sorted((self.folder / "scores").glob("*"))
        return [path.name for path in folders if (path / "done.json").is_file()]

    def require(self, candidates: int) -> None:
        """Count the rows of all shards.

        Args:
            candidates: How many there must be.

        Raises:
            TastemakerError: A shard is missing, or holds more or less than it should.
        """
        import pyarrow.parquet as pq

        held = 0
        for index, shard in enumerate(self.shards()):
            if shard != self.shard(index):
                raise TastemakerError(
                    f"{self.shard(index)} is missing; run the same command again."
                )
            with whole_parquet(shard):
                held += pq.read_metadata(shard).num_rows
        if held != candidates:
            raise TastemakerError(
                f"{self.folder} holds {held} candidates, not {candidates}; do the processes share"
                " its disk? Delete it and run the same command again."
            )

    def candidates(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Read candidates of all shards, in order."""
        import pyarrow as pa

        return pa.concat_tables([read_table(shard, columns) for shard in self.shards()])

    def scores(self) -> pa.Table:
        """Read prompts, ids and every scorer's column, one row a candidate, in pool order.

        Raises:
            TastemakerError: Scores and candidates do not belong together.
        """
        import pyarrow as pa

        return pa.concat_tables(self.scored_shards())

    def scored_shards(self) -> Iterator[pa.Table]:
        """Read the rows of `scores`, one shard after the other.

        Raises:
            TastemakerError: Scores and candidates do not belong together, or a score is no finite
                number.
        """
        columns = ("candidate_id", "prompt_id", "prompt", "seed", "source", "source_id")
        scorers = self.scorers()
        for shard in self.shards():
            table = read_table(shard, columns)
            for scorer in scorers:
                scored = read_table(self.score_file(scorer, shard), ("candidate_id", scorer))
                if not scored["candidate_id"].equals(table["candidate_id"]):
                    raise TastemakerError(
                        f"scores of {scorer!r} in {self.folder} belong to other candidates;"
                        f" delete {self.folder / 'scores' / scorer} and score again."
                    )
                if not _finite(scored[scorer]):
                    raise TastemakerError(
                        f"{self.score_file(scorer, shard)} holds a score that is no finite number;"
                        f" delete {self.folder / 'scores' / scorer} and score again."
                    )
                table = table.append_column(scorer, scored[scorer])
            yield table


def _finite(scores: pa.ChunkedArray) -> bool:
    """Whether a column holds a finite number in every row."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not pa.types.is_floating(scores.type):
        return False
    return bool(pc.all(pc.is_finite(scores), skip_nulls=False, min_count=0).as_py())


@dataclass(frozen=True)
class PairSet:
    """A folder of pairs and the pools they point into.

    Args:
        folder: The folder, made by `pair` or by an import.
    """

    folder: Path

    @property
    def file(self) -> Path:
        """The parquet file: pair_id, prompt_id, prompt, chosen_id, rejected_id, rule, margin."""
        return self.folder / "pairs.parquet"

    def table(self) -> pa.Table:
        """Read all pairs."""
        return read_table(self.file)

    def rows(self) -> Iterator[dict[str, Any]]:
        """Read one pair after the other."""
        return read_rows(self.file)

    def prompts(self) -> list[str]:
        """Read every pair's prompt."""
        prompts: list[str] = read_table(self.file, ("prompt",))["prompt"].to_pylist()
        return prompts

    def pools(self) -> list[Pool]:
        """Return the pools that the pairs' images lie in."""
        file = self.folder / "pools.json"
        names = read_json(file)
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise damaged(file, "not a list of folders")
        return [Pool((self.folder / name).resolve()) for name in names]

    def write(self, rows: Iterable[Mapping[str, Any]], pools: Sequence[Pool]) -> int:
        """Write pairs and the pools' places, relative to this folder.

        Args:
            rows: One a pair, with the columns of `file`; read once, a few in memory.
            pools: Where their images lie.

        Returns:
            How many pairs there were.
        """
        import pyarrow as pa

        here = self.folder.resolve()
        places = [os.path.relpath(pool.folder.resolve(), here) for pool in pools]
        texts = ("pair_id", "prompt_id", "prompt", "chosen_id", "rejected_id", "rule")
        kinds = {**dict.fromkeys(texts, pa.string()), "margin": pa.float64()}
        number = write_rows(self.file, rows, pa.schema(kinds.items()))
        if number:
            write_json(self.folder / "pools.json", places)
        return number


@dataclass(frozen=True)
class RunDir:
    """A run's folder: every path in one place.

    Args:
        folder: `output/name` of the run.
    """

    folder: Path

    @property
    def config(self) -> Path:
        """The resolved configuration, written first."""
        return self.folder / "config.yaml"

    @property
    def environment(self) -> Path:
        """Versions and machine."""
        return self.folder / "environment.json"

    @property
    def candidates(self) -> Path:
        """The pool that `generate` makes and `score` adds to."""
        return self.folder / "candidates"

    @property
    def real(self) -> Path:
        """The pool of real images."""
        return self.folder / "real"

    @property
    def held_out(self) -> Path:
        """The pool of real images that nothing is trained on."""
        return self.folder / "held_out"

    def source(self, name: str) -> Path:
        """A further pool: reconstructions or blends of real images, or images of a class."""
        return self.folder / "sources" / name

    def round(self, number: int) -> Path:
        """The pool of candidates of one of several rounds, counted from 1."""
        return self.candidates / f"round_{number}"

    @property
    def pairs(self) -> Path:
        """The pairs."""
        return self.folder / "pairs"

    @property
    def policy(self) -> Path:
        """The trained model, its checkpoints and `metrics.jsonl`."""
        return self.folder / "policy"

    def stage_pairs(self, stage: str) -> Path:
        """The pairs of one stage of a curriculum."""
        return self.pairs / stage

    def model(self, name: str) -> Path:
        """The policy, or the model after a stage of a curriculum, with that training's metrics."""
        return self.policy if name == "policy" else self.folder / "stages" / name

    @property
    def evaluation(self) -> Path:
        """One scored pool a model, on the same prompts and seeds."""
        return self.folder / "evaluation"

    @property
    def report_json(self) -> Path:
        """Means, standard errors and win rates."""
        return self.folder / "report.json"

    @property
    def report_html(self) -> Path:
        """The page."""
        return self.folder / "report.html"

    @property
    def before_after(self) -> Path:
        """The page's strips as one picture."""
        return self.folder / "before_after.png"

    @contextlib.contextmanager
    def claimed(self, config: str, environment: Callable[[], dict[str, Any]]) -> Iterator[None]:
        """Have the folder for a configuration and this command alone.

        Args:
            config: The resolved configuration as YAML text.
            environment: Gives versions and machine, JSON-like.

        Raises:
            TastemakerError: The folder belongs to another configuration, or another command is
                writing there.
        """
        with exclusive(self.folder):
            from_main_process(lambda: self.open(config, environment()))
            try:
                yield
            except BaseException:
                own = {self.config, self.environment}
                if is_main_process() and own >= set(_results(self.folder)):
                    for file in own:
                        file.unlink(missing_ok=True)
                raise

    def open(self, config: str, environment: dict[str, Any]) -> RunDir:
        """Claim the folder for a configuration.

        Args:
            config: The resolved configuration as YAML text.
            environment: Versions and machine, JSON-like.

        Raises:
            TastemakerError: The folder belongs to another configuration.
        """
        if self.config.is_file():
            held = _uncut(read_yaml(self.config))
            new = _uncut(parse_yaml(config, self.config))
            if held != new:
                change = _first_difference(held, new)
                raise TastemakerError(
                    f"{self.folder} holds a run of another configuration ({change})."
                    f" Choose another name (name=...), or delete {self.folder}."
                )
        elif self.folder.is_dir() and any(files_below(self.folder)):
            raise TastemakerError(f"{self.folder} exists and is no run; choose another name=....")
        else:
            write_text(self.config, config)
        if not self.environment.is_file():
            write_json(self.environment, environment)
        return self


def refuse_claimed(output: Path) -> None:
    """Refuse to write into a folder that a stage or a run has: its files would be replaced.

    Args:
        output: Of a command that is no stage.

    Raises:
        TastemakerError: It is such a folder.
    """
    if (output / STAGE_FILE).is_file() or RunDir(output).policy.is_dir():
        raise TastemakerError(f"{output} holds what another command made; choose another output.")
