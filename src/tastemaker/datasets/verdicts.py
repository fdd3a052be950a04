"""Verdicts: votes of every kind as preferences between two images of a prompt."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from tastemaker.core.errors import TastemakerError, nearest
from tastemaker.storage.votes import SKIP, Vote

DEFAULT_QUESTION = "overall"

SCORES = {"left": 1.0, "right": 0.0, "tie": 0.5, "both_bad": 0.5}
"""Score of the left image by a pair's answer."""


@dataclass(frozen=True)
class Verdict:
    """A preference of one voter between two images of a prompt.

    Args:
        first: Candidate id.
        second: Candidate id.
        score: 1 where the first was preferred, 0 where the second was, 0.5 for neither.
        bad: True where both were found bad; the score is 0.5 then.
        models: Labels of the sources of both.
        prompt: Their prompt.
        voter: Voter.
        where: Id of the vote, or of the later of two ratings.
    """

    first: str
    second: str
    score: float
    bad: bool
    models: tuple[str, str]
    prompt: str
    voter: str
    where: str

    @property
    def preferred(self) -> str | None:
        """Candidate id of the preferred image; None for a tie."""
        return {1.0: self.first, 0.0: self.second}.get(self.score)


def questions(votes: Iterable[Vote]) -> list[str]:
    """Return the questions that were answered, the overall one first."""
    found = dict.fromkeys(vote.question for vote in votes)
    return sorted(found, key=lambda question: question != DEFAULT_QUESTION)


def of_question(votes: Sequence[Vote], question: str | None) -> list[Vote]:
    """Return the votes on one question.

    Args:
        votes: Votes.
        question: Key; None for the overall question, or the only one.

    Raises:
        TastemakerError: No vote is on it.
    """
    known = questions(votes)
    chosen = question if question is not None else next(iter(known), DEFAULT_QUESTION)
    if question is None and len(known) > 1 and chosen != DEFAULT_QUESTION:
        raise TastemakerError(
            f"the votes are on several questions: choose one, question={known[0]}; there are"
            f" {', '.join(known)}."
        )
    found = [vote for vote in votes if vote.question == chosen]
    if not found:
        raise TastemakerError(f"no vote is on question {chosen!r}. {nearest(chosen, known)}")
    return found


def counting(votes: Iterable[Vote]) -> list[Vote]:
    """Return the votes that results are made of: each voter's first answer to each task.

    Left out are skipped tasks; repeats, which measure the voter's consistency; and gold items,
    whose answer was known before.

    Args:
        votes: Votes in order of time.
    """
    first: dict[tuple[str, str], Vote] = {}
    for vote in votes:
        if vote.answer != SKIP and vote.chosen_by not in {"repeat", "gold"}:
            first.setdefault((vote.voter, vote.task_id), vote)
    return list(first.values())


def verdicts(votes: Iterable[Vote]) -> list[Verdict]:
    """Turn votes into verdicts on two images each.

    Of several images shown at once the best is preferred to all others, and these to the worst:
    2 K - 3 verdicts of K images. Ratings compare every two images of a prompt that one voter rated:
    the higher one is preferred, equal ones tie. Such verdicts of one voter on one prompt are not
    independent; errors are clustered by prompt and voter for that.

    Args:
        votes: Votes that count, on one question.

    Returns:
        Verdicts in the order of their votes.
    """
    rated: dict[tuple[str, str], list[Vote]] = {}
    found: list[Verdict] = []
    for vote in votes:
        if vote.kind == "rating":
            earlier = rated.setdefault((vote.voter, vote.prompt), [])
            found += [_of_ratings(each, vote) for each in earlier if each.shown != vote.shown]
            earlier.append(vote)
        elif vote.kind == "pair":
            bad = vote.answer == "both_bad"
            found.append(_verdict(vote, 0, 1, SCORES[str(vote.answer)], bad=bad))
        else:
            found += _of_best_and_worst(vote)
    return found


def _of_best_and_worst(vote: Vote) -> Iterator[Verdict]:
    assert isinstance(vote.answer, dict)
    best, worst = vote.answer["best"], vote.answer["worst"]
    for first, second in itertools.permutations(range(len(vote.shown)), 2):
        if first == best or (second == worst and first != worst):
            yield _verdict(vote, first, second, 1.0)


def _verdict(vote: Vote, first: int, second: int, score: float, bad: bool = False) -> Verdict:
    ids, models = vote.shown, vote.models
    sides = (models[first], models[second])
    return Verdict(
        ids[first], ids[second], score, bad, sides, vote.prompt, vote.voter, vote.vote_id
    )


def _of_ratings(one: Vote, other: Vote) -> Verdict:
    a, b = one.answer, other.answer
    assert isinstance(a, int)
    assert isinstance(b, int)
    return Verdict(
        one.shown[0],
        other.shown[0],
        0.5 if a == b else float(a > b),
        False,
        (one.models[0], other.models[0]),
        other.prompt,
        other.voter,
        other.vote_id,
    )
