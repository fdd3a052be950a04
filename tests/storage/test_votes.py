"""Votes on disk: nothing that was acknowledged is lost, nothing is counted twice."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tastemaker.core.errors import TastemakerError
from tastemaker.storage.files import DamagedError
from tastemaker.storage.vote_files import VoteFile
from tastemaker.storage.votes import (
    FOLDER,
    Undo,
    Vote,
    checked_voter,
    file_stem,
    is_answer,
    read_voter,
    read_votes,
    task_id,
    write_table,
)

NOON = "2026-01-01T12:00:00.000+00:00"


def vote(name: str, voter: str = "Ada", **fields: Any) -> Vote:
    shown = fields.pop("shown", ("a", "b"))
    given_: dict[str, Any] = {
        "vote_id": name,
        "voter": voter,
        "at": NOON,
        "task_id": task_id("overall", "pair", shown),
        "prompt": "a dog\n\u2028 of “glass”",
        "shown": shown,
        "models": ("",) * len(shown),
        "question": "overall",
        "kind": "pair",
        "answer": "left",
        "seconds": 1.5,
        "chosen_by": "random",
        "probability": 0.125,
    }
    return Vote(**{**given_, **fields})


def ids(votes: list[Vote]) -> list[str]:
    return [each.vote_id for each in votes]


def test_votes_are_read_as_they_were_written(tmp_path: Path) -> None:
    written = [
        vote("1"),
        vote("2", kind="best_worst", shown=("a", "b", "c"), answer={"best": 2, "worst": 0}),
        vote("3", kind="rating", shown=("a",), answer=4, chosen_by="active"),
        vote("4", answer="skip"),
    ]
    file = VoteFile(tmp_path, "Ada")
    for each in written:
        file.append(each)
    assert read_voter(file.path) == written
    assert len(file.path.read_bytes().splitlines()) == 4
    assert write_table(tmp_path / "votes.parquet", written) == 4
    assert read_votes(tmp_path / "votes.parquet") == written


def test_a_kill_at_any_byte_loses_only_the_line_being_written(tmp_path: Path) -> None:
    """For every length of the file: whole lines are read, and the next vote follows them."""
    file = VoteFile(tmp_path, "Ada")
    file.append(vote("1"))
    first = file.path.stat().st_size
    file.append(vote("2"))
    whole = file.path.read_bytes()
    for cut in range(len(whole) + 1):
        file.path.write_bytes(whole[:cut])
        # A line without its line feed is whole: the brace that closes it is its last character.
        expected = [name for name, end in (("1", first - 1), ("2", len(whole) - 1)) if cut >= end]
        assert ids(read_voter(file.path)) == expected, cut
        file.append(vote("3"))
        assert ids(read_voter(file.path)) == [*expected, "3"], cut
        assert all(json.loads(line) for line in file.path.read_bytes().splitlines())


def test_a_long_torn_line_is_cut_off(tmp_path: Path) -> None:
    file = VoteFile(tmp_path, "Ada")
    file.append(vote("1"))
    with file.path.open("ab") as torn:
        torn.write(b'{"prompt": "' + b"x" * 20_000)
    file.append(vote("2"))
    assert ids(read_voter(file.path)) == ["1", "2"]


def test_a_line_is_on_disk_before_append_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[tuple[int, int]] = []

    def fsync(number: int) -> None:
        whole(number)
        about = os.fstat(number)
        synced.append((about.st_ino, about.st_size))

    whole = os.fsync
    monkeypatch.setattr(os, "fsync", fsync)
    file = VoteFile(tmp_path, "Ada")
    for number in range(3):
        file.append(vote(str(number)))
        about = file.path.stat()
        assert (about.st_ino, about.st_size) in synced
    assert file.path.parent.stat().st_ino in {place for place, _ in synced}


def test_an_id_counts_once_and_what_is_undone_not_at_all(tmp_path: Path) -> None:
    file = VoteFile(tmp_path, "Ada")
    for line in (vote("1"), vote("2"), vote("1", answer="right"), Undo("u", "Ada", NOON, "2")):
        file.append(line)
    (only,) = read_voter(file.path)
    assert (only.vote_id, only.answer) == ("1", "left")
    file.append(vote("2"))  # sent again after it was undone
    assert ids(read_voter(file.path)) == ["1"]


def test_studies_merge(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    VoteFile(here, "Ada").append(vote("1", at="2026-01-01T12:00:02.000+00:00"))
    VoteFile(there, "Ada").append(vote("1", at="2026-01-01T12:00:02.000+00:00"))
    VoteFile(there, "Bo").append(vote("2", "Bo", at="2026-01-01T12:00:01.000+00:00"))
    VoteFile(there, "Bo").append(vote("3", "Bo"))
    VoteFile(here, "Bo").append(Undo("u", "Bo", NOON, "3"))
    merged = read_votes(here, there)
    assert [(each.vote_id, each.voter) for each in merged] == [("2", "Bo"), ("1", "Ada")]
    write_table(tmp_path / "merged.parquet", merged)
    assert read_votes(tmp_path / "merged.parquet") == merged
    assert ids(read_votes(tmp_path / "merged.parquet", there / FOLDER)) == ["3", "2", "1"]


def test_nothing_to_read_is_said(tmp_path: Path) -> None:
    with pytest.raises(TastemakerError, match="has no votes"):
        read_votes(tmp_path)
    with pytest.raises(TastemakerError, match="does not exist"):
        read_votes(tmp_path / "missing")


WRONG = {
    "no object": "[1]",
    "a field missing": json.dumps({"vote_id": "1", "voter": "Ada", "at": NOON}),
    "an answer of another kind": {"kind": "rating"},
    "an unknown kind": {"kind": "hunch"},
    "labels of other images": {"models": ["", "", ""]},
    "an answer beyond the images": {"kind": "best_worst", "answer": {"best": 0, "worst": 2}},
}


@pytest.mark.parametrize("name", WRONG)
def test_a_line_that_is_no_vote_is_named(tmp_path: Path, name: str) -> None:
    wrong = WRONG[name]
    file = VoteFile(tmp_path, "Ada")
    file.append(vote("1"))
    line = file.path.read_text(encoding="utf-8")
    text = json.dumps({**json.loads(line), **wrong}) if isinstance(wrong, dict) else wrong
    file.path.write_text(f"{text}\n{line}", encoding="utf-8")
    with pytest.raises(DamagedError, match=r"jsonl is damaged .*line 1"):
        read_voter(file.path)


@given(st.text(max_size=60))
def test_any_name_is_refused_or_names_a_file_in_the_folder(name: str) -> None:
    try:
        voter = checked_voter(name)
    except TastemakerError:
        return
    assert checked_voter(voter) == voter
    stem = file_stem(voter)
    assert set(stem) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
    assert len(stem) <= 60


def test_names_alike_have_files_of_their_own() -> None:
    names = ["Ada", "ada", "../ada", "ada.jsonl", "<b>ada</b>", "アダ", "アーダ", "CON"]
    assert len({file_stem(name) for name in names}) == len(names)
    for bad in ("", "   ", "x" * 41, "a\0b", "a\u202eb", "\ud800", None, 3):
        with pytest.raises(TastemakerError, match="voter's name"):
            checked_voter(bad)


def test_answers_of_each_kind() -> None:
    pairs = ("left", "right", "tie", "both_bad", "skip")
    words = (*pairs, "best", 1, None, True)
    assert [each for each in words if is_answer("pair", each, 2)] == [*pairs]
    assert [n for n in range(-1, 8) if is_answer("rating", n, 1)] == [1, 2, 3, 4, 5]
    assert not is_answer("rating", True, 1)
    assert not is_answer("rating", "left", 1)
    rows = [{"best": b, "worst": w} for b in range(-1, 4) for w in range(-1, 4)]
    assert sum(is_answer("best_worst", row, 3) for row in rows) == 6
    assert not is_answer("best_worst", {"best": True, "worst": 0}, 3)
    assert all(is_answer(kind, "skip", 2) for kind in ("pair", "best_worst", "rating"))
