"""Results of votes: all that the page shows, as one JSON-like object."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from tastemaker.datasets.verdicts import counting, of_question, questions, verdicts
from tastemaker.reporting.votes.models import Numbers, models
from tastemaker.reporting.votes.people import agreement, chosen_by, voters
from tastemaker.reporting.votes.scorers import scorers, scores_of
from tastemaker.reporting.votes.sentence import sentence
from tastemaker.storage.pool import Pool
from tastemaker.storage.votes import SKIP, Vote

Gold = Mapping[frozenset[str], str]


def results(votes: Sequence[Vote], pools: Iterable[Pool] = (), gold: Gold | None = None) -> Numbers:
    """Work out the results of votes.

    Args:
        votes: Of one study or several of equal sources, in order of time.
        pools: Pools of their images, for the scorers' columns.
        gold: The better image of each gold item, by the ids of both.

    Returns:
        Numbers of votes and voters, `sentence` on the first question, and `questions`: of each the
        models' strengths and win rates, agreement between voters, each voter, and the scorers.
    """
    pools = list(pools)
    found = {
        key: _of_question(of_question(votes, key), pools, gold or {}) for key in questions(votes)
    }
    return {
        "votes": len(counting(votes)),
        "voters": len({vote.voter for vote in votes}),
        "skipped": sum(vote.answer == SKIP for vote in votes),
        "sentence": next(iter(found.values()))["sentence"],
        "questions": found,
    }


def _of_question(votes: Sequence[Vote], pools: Sequence[Pool], gold: Gold) -> Numbers:
    counted = counting(votes)
    said = verdicts(counted)
    found: Numbers = {
        "votes": len(counted),
        "voters": len({vote.voter for vote in counted}),
        "prompts": len({vote.prompt for vote in counted}),
        "chosen_by": chosen_by(votes),
    }
    found |= models(said) or {}
    return {
        "sentence": sentence(found),
        **found,
        "agreement": agreement(counted, said),
        "voter_table": voters(votes, gold),
        **scorers(said, scores_of(pools, said)),
    }
