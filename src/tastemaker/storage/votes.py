"""Votes: their fields, the files of a study read and merged by vote id, and their parquet form."""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from tastemaker.core.errors import TastemakerError
from tastemaker.core.values import shown as quoted
from tastemaker.storage.files import damaged, read_json_lines
from tastemaker.storage.parquet import read_rows, write_rows

Kind = Literal["pair", "best_worst", "rating"]
ChosenBy = Literal["random", "active", "repeat", "gold"]
Answer = str | int | dict[str, int]

SKIP = "skip"
PAIR_ANSWERS = ("left", "right", "tie", "both_bad", SKIP)
RATINGS = (1, 2, 3, 4, 5)

FOLDER = "votes"
"""Folder of the voters' files, in that of a study."""

LONGEST_VOTER = 40
"""Characters of a voter's name."""

_FIELDS: dict[str, type | tuple[type, ...]] = {
    "vote_id": str,
    "voter": str,
    "at": str,
    "task_id": str,
    "prompt": str,
    "shown": list,
    "models": list,
    "question": str,
    "kind": str,
    "answer": (str, int, dict),
    "seconds": (int, float),
    "chosen_by": str,
    "probability": (int, float),
}


@dataclass(frozen=True)
class Vote:
    """One answer of one voter to one task.

    Args:
        vote_id: Made where the vote was cast; the same id again is the same vote.
        voter: Name.
        at: UTC, ISO 8601.
        task_id: Of `task_id`; equal for repeats of one task.
        prompt: Text that the images belong to.
        shown: Candidate ids in the order shown, left first.
        models: Label of each shown image's source; "" for a single pool.
        question: Key of the question.
        kind: Way of judging.
        answer: A pair's "left", "right", "tie" or "both_bad"; the indices in `shown` of
            {"best", "worst"}; a rating of 1 to 5; or "skip".
        seconds: From shown to answered.
        chosen_by: Rule that chose the task; "repeat" and "gold" measure the voter.
        probability: Probability with which it was chosen among the open ones.
    """

    vote_id: str
    voter: str
    at: str
    task_id: str
    prompt: str
    shown: tuple[str, ...]
    models: tuple[str, ...]
    question: str
    kind: Kind
    answer: Answer
    seconds: float
    chosen_by: ChosenBy
    probability: float


@dataclass(frozen=True)
class Undo:
    """A voter's retraction of a vote.

    Args:
        vote_id: Its own id.
        voter: Name.
        at: UTC, ISO 8601.
        undoes: Id of the vote.
    """

    vote_id: str
    voter: str
    at: str
    undoes: str


def checked_voter(name: object) -> str:
    """Return a voter's name in its one form: NFC, single spaces, none at the ends.

    Args:
        name: As it was typed.

    Raises:
        TastemakerError: It is empty, has more than `LONGEST_VOTER` characters, or one that cannot
            be printed.

    Example:
        >>> checked_voter("  Ada   Lovelace ")
        'Ada Lovelace'
    """
    text = " ".join(unicodedata.normalize("NFC", name).split()) if isinstance(name, str) else ""
    if not text or len(text) > LONGEST_VOTER or not text.isprintable():
        raise TastemakerError(
            f"a voter's name has 1 to {LONGEST_VOTER} printable characters; {quoted(name)} has not."
        )
    return text


def file_stem(voter: str) -> str:
    """Name a voter's file: a readable part, and a hash that tells names apart.

    Example:
        >>> file_stem("../../Ada <b>")
        'ada-b-...'
    """
    slug = re.sub(r"[^a-z0-9]+", "-", voter.lower()).strip("-")
    return f"{slug or 'voter'}-{hashlib.sha256(voter.encode()).hexdigest()[:12]}"


def task_id(question: str, kind: Kind, candidate_ids: Iterable[str]) -> str:
    """Identify a task by question, kind and images, whatever their order.

    Returns:
        64 hex digits.

    Example:
        >>> task_id("overall", "pair", ["b", "a"]) == task_id("overall", "pair", ["a", "b"])
        True
    """
    text = json.dumps([question, kind, sorted(candidate_ids)])
    return hashlib.sha256(text.encode()).hexdigest()


def is_answer(kind: Kind, answer: object, images: int) -> bool:
    """Return True if an answer is one to a task.

    Args:
        kind: Way of judging.
        answer: As JSON gave it.
        images: Number of images shown.

    Example:
        >>> is_answer("best_worst", {"best": 0, "worst": 2}, 3)
        True
        >>> is_answer("rating", 6, 1)
        False
    """
    if isinstance(answer, str):
        return answer == SKIP or (kind == "pair" and answer in PAIR_ANSWERS)
    if kind == "rating":
        return type(answer) is int and answer in RATINGS
    if kind != "best_worst" or not isinstance(answer, dict) or set(answer) != {"best", "worst"}:
        return False
    best, worst = answer["best"], answer["worst"]
    indices = type(best) is int and type(worst) is int
    return indices and best != worst and all(0 <= each < images for each in (best, worst))


def read_voter(path: Path) -> list[Vote]:
    """Read the votes of one voter's file that count.

    Args:
        path: A .jsonl file; missing reads as empty. A torn last line, as a kill leaves it, is left
            out.

    Returns:
        Votes in the order of the file, each id once, without those undone.

    Raises:
        TastemakerError: A line is not one of a vote.
    """
    return counted(read_lines(path))


def counted(lines: Iterable[Vote | Undo]) -> list[Vote]:
    """Keep the votes that count: each id once, without those undone, in their order."""
    votes: dict[str, Vote] = {}
    undone = set()
    for line in lines:
        if isinstance(line, Undo):
            undone.add(line.undoes)
        else:
            votes.setdefault(line.vote_id, line)
    return [vote for vote in votes.values() if vote.vote_id not in undone]


def read_votes(*sources: Path) -> list[Vote]:
    """Read and merge votes; the same vote from several sources counts once.

    Args:
        *sources: Folders of studies, folders of voters' files, .jsonl or .parquet files. An undo in
            one undoes the vote in all.

    Returns:
        Votes in order of time.

    Raises:
        TastemakerError: A source has no votes' files, or a file is damaged.
    """
    lines: list[Vote | Undo] = []
    for file in (file for source in sources for file in vote_files(source)):
        lines += _table_votes(file) if file.suffix == ".parquet" else read_lines(file)
    return sorted(counted(lines), key=lambda vote: (vote.at, vote.vote_id))


def vote_files(source: Path) -> list[Path]:
    """List the files of votes that a source has.

    Args:
        source: As for `read_votes`.

    Raises:
        TastemakerError: There is none.
    """
    if source.is_file():
        return [source]
    folder = source / FOLDER if (source / FOLDER).is_dir() else source
    found = sorted(folder.glob("*.jsonl")) or sorted(folder.glob("*.parquet"))
    if not found:
        state = "has no votes" if source.is_dir() else "does not exist"
        raise TastemakerError(f"{source} {state}; name a folder of `studio`, or a file of votes.")
    return found


def read_lines(path: Path) -> Iterator[Vote | Undo]:
    """Read the lines of a voter's file, also those that do not count.

    Args:
        path: As for `read_voter`.

    Raises:
        TastemakerError: As for `read_voter`.
    """
    for number, row in enumerate(read_json_lines(path, vote_id=str, voter=str, at=str), 1):
        if "undoes" in row:
            yield Undo(row["vote_id"], row["voter"], row["at"], str(row["undoes"]))
        else:
            yield _vote(row, path, f"line {number}")


def _vote(row: Mapping[str, Any], path: Path, where: str) -> Vote:
    for name, kind in _FIELDS.items():
        if not isinstance(row.get(name), kind):
            raise damaged(path, f"{where}: no {name!r} of a vote")
    known = row["kind"] in get_args(Kind) and row["chosen_by"] in get_args(ChosenBy)
    fits = known and len(row["shown"]) == len(row["models"])
    if not fits or not is_answer(row["kind"], row["answer"], len(row["shown"])):
        raise damaged(path, f"{where}: kind, answer and images do not belong together")
    values = {name: row[name] for name in _FIELDS}
    return Vote(**{**values, "shown": tuple(row["shown"]), "models": tuple(row["models"])})


def write_table(path: Path, votes: Sequence[Vote]) -> int:
    """Write votes as one parquet file: the columns of `Vote`.

    `answer` is text: a pair's word, a rating's digit, or JSON of best and worst.

    Args:
        path: The file; without a vote none is written.
        votes: Votes that count.

    Returns:
        Number of rows.
    """
    import pyarrow as pa

    kinds = {name: pa.string() for name in _FIELDS}
    kinds |= {"shown": pa.list_(pa.string()), "models": pa.list_(pa.string())}
    kinds |= {"seconds": pa.float64(), "probability": pa.float64()}
    rows = ({**asdict(vote), "answer": _answer_text(vote.answer)} for vote in votes)
    return write_rows(path, rows, pa.schema(kinds.items()))


def _answer_text(answer: Answer) -> str:
    return answer if isinstance(answer, str) else json.dumps(answer)


def _table_votes(path: Path) -> Iterator[Vote]:
    for number, row in enumerate(read_rows(path), 1):
        answer = row.get("answer")
        if isinstance(answer, str) and answer[:1] in {"{", *map(str, RATINGS)}:
            try:
                row["answer"] = json.loads(answer)
            except ValueError:
                raise damaged(path, f"row {number}: no answer of a vote") from None
        yield _vote(row, path, f"row {number}")
