"""Studies: votes with the pools of the images that were judged."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tastemaker.core.errors import TastemakerError
from tastemaker.core.reading import read_bytes
from tastemaker.datasets.comparisons import Comparison
from tastemaker.datasets.verdicts import Verdict, counting, of_question, verdicts
from tastemaker.storage.candidates import Rows
from tastemaker.storage.files import config_key, leads_out, read_record
from tastemaker.storage.pairs import PairSet
from tastemaker.storage.pool import Pool
from tastemaker.storage.votes import FOLDER, Vote, read_votes, vote_files

STUDY = "study.json"

COLUMNS = ("candidate_id", "image")


@dataclass(frozen=True)
class Studies:
    """Merged votes of one study or several of equal sources.

    Args:
        votes: In order of time, each once.
        pools: Pools of the images, as far as sources are pools or pairs.
        folders: Folders of images, with what an id has before the name of its file.
        gold: The better image of each gold item, by the ids of both.
    """

    votes: tuple[Vote, ...]
    pools: tuple[Pool, ...] = ()
    folders: tuple[tuple[Path, str], ...] = ()
    gold: Mapping[frozenset[str], str] = field(default_factory=dict)


def is_study(folder: Path) -> bool:
    """Return True for the folder of a study."""
    return (folder / STUDY).is_file() and (folder / FOLDER).is_dir()


def read_studies(places: Sequence[Path]) -> Studies:
    """Read and merge the votes of several places.

    Args:
        places: Folders of studies, folders or files of votes (.jsonl, .parquet), exports of Label
            Studio (.json); one or more.

    Returns:
        Votes and pools.

    Raises:
        TastemakerError: A place has no votes or is damaged, or studies are of different sources.
    """
    from tastemaker.datasets.formats.label_studio import label_studio_votes

    foreign = [place for place in places if place.suffix == ".json" and place.is_file()]
    own = [place for place in places if place not in foreign]
    votes = [vote for place in foreign for vote in label_studio_votes(place)]
    votes += read_votes(*own) if own else []
    if not votes:
        raise TastemakerError(f"{', '.join(map(str, places))}: nobody has voted yet.")
    studies = {place: _about(place) for place in own if is_study(place)}
    for place, about in studies.items():
        first = next(iter(studies))
        if _content(about) != _content(studies[first]):
            raise TastemakerError(
                f"{place} and {first} are studies of different sources; only votes on equal sources"
                " can be merged."
            )
    unique = {vote.vote_id: vote for vote in votes}.values()
    ordered = tuple(sorted(unique, key=lambda vote: (vote.at, vote.vote_id)))
    return _opened(ordered, next(iter(studies.items()), None))


def study_key(folder: Path) -> str:
    """Return a hash of a study's votes as they are now."""
    return config_key([file.read_bytes().hex() for file in vote_files(folder)])


def study_comparisons(folder: Path, question: str | None) -> Iterator[Comparison]:
    """Read the verdicts of a study with their images, those of one pair after one another.

    Args:
        folder: Folder of a study.
        question: Key; None for the overall question, or the only one.

    Yields:
        A comparison of two images per verdict, with voter, candidate ids and models.

    Raises:
        TastemakerError: An image is in none of the study's sources, or no vote is on the question.
    """
    study = read_studies([folder])
    pools = [Rows(pool, COLUMNS) for pool in study.pools]
    said = verdicts(counting(of_question(study.votes, question)))
    for each in sorted(said, key=lambda verdict: (verdict.prompt, verdict.first, verdict.second)):
        yield _comparison(each, pools, study)


def _comparison(verdict: Verdict, pools: Sequence[Rows], study: Studies) -> Comparison:
    ids = (verdict.first, verdict.second)
    return Comparison(
        verdict.where,
        verdict.prompt,
        tuple(_image(each, pools, study) for each in ids),
        (verdict.score, 1 - verdict.score),
        verdict.models,
        bad=verdict.bad,
        ids=ids,
        voter=verdict.voter,
    )


def _image(candidate_id: str, pools: Sequence[Rows], study: Studies) -> bytes:
    for rows in pools:
        if (row := rows.get(candidate_id)) is not None:
            found: bytes = row["image"]["bytes"]
            return found
    for folder, prefix in study.folders:
        name = candidate_id.removeprefix(prefix)
        if candidate_id.startswith(prefix) and not leads_out(name) and (folder / name).is_file():
            return read_bytes(folder / name)
    raise TastemakerError(
        f"image {candidate_id} is in none of the study's sources; restore what {STUDY} names."
    )


def _about(folder: Path) -> dict[str, Any]:
    return read_record(folder / STUDY, sources=list, labels=list)


def _content(about: Mapping[str, Any]) -> Any:
    """Return what equal studies share: labels, and sources without their folders."""
    return about["labels"], [{**source, "folder": None} for source in about["sources"]]


def _opened(votes: tuple[Vote, ...], study: tuple[Path, Mapping[str, Any]] | None) -> Studies:
    """Open the sources of a study, from where it names them or from beside it."""
    if study is None:
        return Studies(votes)
    place, about = study
    pools: dict[Path, Pool] = {}
    folders = []
    labels = about["labels"]
    for source, label in zip(about["sources"], labels, strict=False):
        folder = _placed(place, source["folder"])
        if source["kind"] == "images":
            folders.append((folder, f"{label}/" if label else ""))
        elif source["kind"] == "pool":
            pools[folder.resolve()] = Pool(folder)
        else:
            pools |= {pool.folder: pool for pool in PairSet(folder).pools()}
    there = tuple(pool for pool in pools.values() if any(pool.folder.glob("candidates-*.parquet")))
    return Studies(votes, there, tuple(folders), _gold(place, about))


def _gold(place: Path, about: Mapping[str, Any]) -> dict[frozenset[str], str]:
    gold = about.get("gold")
    pairs = PairSet(_placed(place, gold["folder"])) if gold else None
    if pairs is None or not pairs.file.is_file():
        return {}
    return {
        frozenset((row["chosen_id"], row["rejected_id"])): row["chosen_id"] for row in pairs.rows()
    }


def _placed(study: Path, name: str) -> Path:
    folder = Path(name).expanduser()
    return folder if folder.exists() else study / folder
