"""Models by people's votes: strengths, differences and win rates."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from typing import Any

from tastemaker.datasets.verdicts import Verdict
from tastemaker.metrics.bradley_terry import BradleyTerry, Comparison, Difference, holm
from tastemaker.metrics.clusters import MeanInterval
from tastemaker.metrics.win_rate import WinRate

Numbers = dict[str, Any]
"""JSON-like; a number that is not known is None."""


def models(verdicts: Sequence[Verdict]) -> Numbers | None:
    """Fit the models' strengths.

    Args:
        verdicts: On one question.

    Returns:
        `models` from the strongest to the weakest, `differences` of each to each, `win_rates`, and
        `unlinked` models that no votes compare with the first; None where the votes are not on two
        models or more.
    """
    between = [each for each in verdicts if all(each.models) and len(set(each.models)) == 2]
    if not between:
        return None
    names = tuple(dict.fromkeys(name for each in between for name in each.models))
    fit = BradleyTerry(names, tuple(map(_of_models, between)))
    ranked = sorted(names, key=lambda name: -fit.strength(name).mean)
    rates = fit.win_rates()
    return {
        "models": {name: _entry(name, fit, between) for name in ranked},
        "differences": _differences(fit, ranked),
        "win_rates": {
            name: {other: _met(rates[name][other], between, name, other) for other in rates[name]}
            for name in ranked
        },
        "unlinked": list(fit.unlinked()),
    }


def share(rate: WinRate, votes: int) -> Numbers:
    """Return a share with its interval as numbers of a file."""
    return {"value": rate.value, "low": rate.low, "high": rate.high, "votes": votes}


def known(value: float) -> float | None:
    """Return a number, or None for one that is not known."""
    return value if math.isfinite(value) else None


def _of_models(verdict: Verdict) -> Comparison:
    first, second = verdict.models
    return Comparison(first, second, verdict.score, verdict.prompt, verdict.voter)


def _entry(name: str, fit: BradleyTerry, verdicts: Sequence[Verdict]) -> Numbers:
    strength: MeanInterval = fit.strength(name)
    mine = [each for each in verdicts if name in each.models]
    won = sum(each.score == float(each.models[0] == name) for each in mine)
    bad = sum(each.bad for each in mine)
    tied = sum(each.score == 0.5 for each in mine) - bad
    return {
        "strength": strength.mean,
        "stderr": strength.stderr,
        "low": strength.low,
        "high": strength.high,
        "comparisons": len(mine),
        "wins": won,
        "ties": tied,
        "both_bad": bad,
        "losses": len(mine) - won - tied - bad,
    }


def _differences(fit: BradleyTerry, names: Sequence[str]) -> dict[str, dict[str, Numbers]]:
    """Differences of the stronger (first key) to each weaker model, p values adjusted by Holm."""
    pairs = list(combinations(names, 2))
    found: list[Difference] = [fit.difference(*pair) for pair in pairs]
    adjusted = holm([each.p for each in found])
    table: dict[str, dict[str, Numbers]] = {name: {} for name in names[:-1]}
    for (name, other), each, p in zip(pairs, found, adjusted, strict=True):
        table[name][other] = {**each._asdict(), "p_holm": p}
    return table


def _met(
    rate: WinRate | None, verdicts: Sequence[Verdict], name: str, other: str
) -> Numbers | None:
    if rate is None:
        return None
    return share(rate, sum({name, other} == set(each.models) for each in verdicts))
