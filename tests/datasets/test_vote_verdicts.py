"""Votes of every kind as preferences between two images."""

from __future__ import annotations

import pytest

from tastemaker.core.errors import TastemakerError
from tastemaker.datasets.verdicts import counting, of_question, questions, verdicts
from tastemaker.storage.votes import Vote
from voting import vote


def pairs(*votes: Vote) -> list[tuple[str, str, float]]:
    return [(each.first, each.second, each.score) for each in verdicts(votes)]


@pytest.mark.parametrize(
    ("answer", "score", "preferred"),
    [("left", 1.0, "a"), ("right", 0.0, "b"), ("tie", 0.5, None), ("both_bad", 0.5, None)],
)
def test_a_pair(answer: str, score: float, preferred: str | None) -> None:
    (found,) = verdicts([vote(1, "cat", "ab", answer, models=("x", "y"))])
    assert (found.first, found.second, found.score) == ("a", "b", score)
    assert (found.preferred, found.bad, found.models) == (
        preferred,
        answer == "both_bad",
        ("x", "y"),
    )


def test_best_and_worst_of_four_are_five_verdicts() -> None:
    cast = vote(1, "cat", "abcd", {"best": 2, "worst": 0}, kind="best_worst", models=tuple("wxyz"))
    found = verdicts([cast])
    preferred = {
        (each.preferred, *({each.first, each.second} - {each.preferred})) for each in found
    }
    assert preferred == {("c", "a"), ("c", "b"), ("c", "d"), ("b", "a"), ("d", "a")}
    assert len(found) == 5
    assert {each.models for each in found if each.first == "c"} == {
        ("y", "w"),
        ("y", "x"),
        ("y", "z"),
    }


def test_best_and_worst_of_two_is_one_verdict() -> None:
    assert pairs(vote(1, "cat", "ab", {"best": 1, "worst": 0}, kind="best_worst")) == [
        ("b", "a", 1.0)
    ]


def test_ratings_compare_images_of_one_voter_and_prompt() -> None:
    rated = [
        vote(1, "cat", "a", 5, kind="rating"),
        vote(2, "cat", "b", 3, kind="rating"),
        vote(3, "dog", "c", 1, kind="rating"),
        vote(4, "cat", "d", 5, kind="rating"),
        vote(5, "cat", "a", 1, kind="rating", voter="Bob"),
    ]
    assert pairs(*rated) == [("a", "b", 1.0), ("a", "d", 0.5), ("b", "d", 0.0)]


def test_each_voter_counts_once_per_task() -> None:
    cast = [
        vote(1, "cat", "ab", "skip"),
        vote(2, "cat", "ab", "left"),
        vote(3, "cat", "ba", "left"),  # the same task again, the other way round
        vote(4, "cat", "ab", "right", chosen_by="repeat"),
        vote(5, "cat", "cd", "left", chosen_by="gold"),
        vote(6, "cat", "ab", "right", voter="Bob"),
        vote(7, "cat", "ab", "tie", question="colour"),
    ]
    assert [each.vote_id for each in counting(cast)] == ["Ada-2", "Bob-6", "Ada-7"]


def test_questions() -> None:
    both = [vote(1, "cat", "ab", "left", question=name) for name in ("colour", "overall", "shape")]
    assert questions(both) == ["overall", "colour", "shape"]
    assert [each.question for each in of_question(both, None)] == ["overall"]
    assert [each.question for each in of_question(both, "shape")] == ["shape"]
    assert of_question(both[:1], None) == both[:1]
    with pytest.raises(TastemakerError, match=r"no vote is on question 'shap'.*shape"):
        of_question(both, "shap")
    with pytest.raises(TastemakerError, match="several questions: choose one, question=colour"):
        of_question([both[0], both[2]], None)
