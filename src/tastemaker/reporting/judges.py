"""Scorers that training learned from, and the independent judge of a run."""

from __future__ import annotations

from collections.abc import Mapping

from tastemaker.config.choices import ScorerChoice
from tastemaker.config.runs import RewardRun, RunConfig
from tastemaker.config.sections import ScoreConfig, columns


def training_scorers(config: RunConfig) -> list[str]:
    """Return the scorers that decided which image was chosen, or whose gradient was followed.

    Args:
        config: A run.

    Returns:
        Columns of scores, with the members of ensembles, and the columns of the evaluation by the
        same networks under another label or other options.
    """
    score = getattr(config, "score", None)
    made = {each.column: each for each in score.scorers} if isinstance(score, ScoreConfig) else {}
    if isinstance(config, RewardRun):
        made = {config.train.scorer.column: config.train.scorer}
    named = [name for path, name in columns(config) if not path.startswith("evaluate.")]
    learned = dict.fromkeys(named or made)
    for name in list(learned):
        learned |= dict.fromkeys(_members(name, made))
    known = [made[name].network for name in learned if name in made]
    same = [each.column for each in config.evaluate.scorers if each.network in known]
    return list(learned | dict.fromkeys(same))


def judge_of(config: RunConfig) -> str | None:
    """Return `evaluate.judge`, or the first scorer of the evaluation that is independent.

    Args:
        config: A run.

    Returns:
        A column of `evaluate.scorers`; None where training learned from all of them.
    """
    if config.evaluate.judge is not None:
        return config.evaluate.judge
    learned = training_scorers(config)
    independent = (each.column for each in config.evaluate.scorers if each.column not in learned)
    return next(independent, None)


def _members(column: str, made: Mapping[str, ScorerChoice]) -> list[str]:
    """Return the columns of an ensemble and of the ensembles among them."""
    of = made[column].members if column in made else ()
    return [*of, *(inner for name in of for inner in _members(name, made))]
