"""Measured results as sentences and table rows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from tastemaker.evaluation.report_text import share_text
from tastemaker.reporting.run_contents import Contents

Tone = Literal["better", "worse", "unclear"]


@dataclass(frozen=True)
class Result:
    """One model under one scorer; NaN for values that `report.json` lacks.

    Args:
        scorer: The scorer.
        model: The model.
        mean: Mean score.
        stderr: Standard error of the mean.
        difference: Mean difference to the base's images; NaN for the base itself.
        difference_stderr: Its standard error, of pairs of one prompt and seed.
        difference_low: Lower end of its 95% interval.
        difference_high: Upper end of its 95% interval.
        win_rate: Share of images that beat the base's image, ties counted half.
        low: Lower end of the win rate's 95% interval.
        high: Upper end of the win rate's 95% interval.
        is_share: True for a scorer that gives 0 or 1 alone.
    """

    scorer: str
    model: str
    mean: float
    stderr: float
    difference: float
    difference_stderr: float
    difference_low: float
    difference_high: float
    win_rate: float
    low: float
    high: float
    is_share: bool

    @property
    def has_win_rate(self) -> bool:
        """True where a win rate with its interval was measured."""
        return all(math.isfinite(value) for value in (self.win_rate, self.low, self.high))

    @property
    def digits(self) -> int:
        """Decimals of the printed difference."""
        return decimals(self.difference_stderr)

    @property
    def tone(self) -> Tone:
        """Better or worse only where the whole interval lies on one side of no difference.

        The interval is that of the win rate, or of the difference of shares.
        """
        low, high = self.low - 0.5, self.high - 0.5
        if self.is_share:
            low, high = self.difference_low, self.difference_high
        return "better" if low > 0 else "worse" if high < 0 else "unclear"

    @property
    def win_rate_text(self) -> str:
        """The printed win rate: `71.3% [63.0, 78.4]`."""
        rate, low, high = (100 * value for value in (self.win_rate, self.low, self.high))
        return f"{rate:.1f}% [{low:.1f}, {high:.1f}]"


def results(contents: Contents) -> list[Result]:
    """Return every measured pair of scorer and model, scorer by scorer, base first."""
    return [
        _result(contents, scorer, model)
        for scorer in contents.scorers
        for model in (contents.base, *contents.challengers)
        if scorer in _scores(contents, model)
    ]


def verdict(contents: Contents) -> tuple[str, Tone]:
    """Put the comparison of policy and base in one sentence.

    Scorers that training learned from count only where all are such. The policy wins by a
    scorer where the whole 95% interval of its win rate lies above one half, or of its difference
    above 0 where scores are 0 or 1; a judge of such scores is quoted by its shares.

    Args:
        contents: The run.

    Returns:
        The sentence and its tone.
    """
    model = contents.subject
    if model is None:
        return "Only the base was measured: there is nothing to compare it with.", "unclear"
    title = "Policy" if model == "policy" else model
    measured = [row for row in results(contents) if row.model == model and row.has_win_rate]
    if not measured:
        return f"No win rate of {title} against {contents.base} was measured.", "unclear"
    learned = contents.training_scorers
    counted = [row for row in measured if row.scorer not in learned] or measured
    independent = counted[0].scorer not in learned
    noun = "independent scorer" if independent and learned else "scorer"
    total = f"{len(counted)} {noun}{'s' if len(counted) > 1 else ''}"
    wins = sum(row.tone == "better" for row in counted)
    losses = sum(row.tone == "worse" for row in counted)
    if wins:
        sentence = f"{title} beats {contents.base} on {wins} of {total}"
        sentence += f" and loses on {losses}" if losses else ""
    elif losses:
        sentence = f"{title} loses against {contents.base} on {losses} of {total}"
    else:
        sentence = f"No clear difference between {title} and {contents.base} on {total}"
    tone: Tone = "worse" if losses else "better" if wins else "unclear"
    if not independent:
        return f"{sentence}, and training learned from all of them: no independent judge.", tone
    judge = next((row for row in measured if row.scorer == contents.judge), counted[-1])
    if judge.is_share:
        shares = share_text(contents.report, judge.scorer, model).replace(
            "->", "\N{RIGHTWARDS ARROW}"
        )
        return f"Share of images by {judge.scorer}: {shares}. {sentence}.", tone
    return f"{sentence}; win rate by {judge.scorer} {judge.win_rate_text}.", tone


def decimals(spread: float) -> int:
    """Return the decimals to print, so that the spread shows with two digits.

    Args:
        spread: A standard error or deviation.

    Returns:
        Between 0 and 6; 3 where the spread is zero or unknown.

    Example:
        >>> decimals(0.0123), decimals(4.5), decimals(0.0)
        (3, 1, 3)
    """
    if not math.isfinite(spread) or spread <= 0:
        return 3
    return min(max(1 - math.floor(math.log10(spread)), 0), 6)


def drawn_with(contents: Contents) -> list[str]:
    """Return a sentence for each model that was drawn with its LoRA switched or scaled."""
    models: Mapping[str, Any] = contents.report["models"]
    return [
        f"{name} was drawn with {models[name]['drawn_with']}."
        for name in contents.challengers
        if "drawn_with" in models.get(name, {})
    ]


@dataclass(frozen=True)
class Measure:
    """A metric of one model's images; NaN for values that `report.json` lacks.

    Args:
        name: The metric with its features or classifier.
        model: The model.
        value: The value.
        stderr: Its standard error.
        floor: A distance's value between two halves of the real images.
        images: Number of images.
        change: Relative difference of diversity to the base's, and both ends of its interval.
    """

    name: str
    model: str
    value: float
    stderr: float
    floor: float
    images: int
    change: tuple[float, float, float]

    @property
    def digits(self) -> int:
        """Decimals of the printed value."""
        return decimals(self.stderr)


def measures(contents: Contents) -> list[Measure]:
    """Return every metric of the models' images, in the order of `evaluate.metrics`."""
    models: Mapping[str, Any] = contents.report["models"]
    return [
        Measure(
            name=f"{entry['name']}, {label}",
            model=model,
            value=_number(entry["value"]),
            stderr=_number(entry["stderr"]),
            floor=_number(entry.get("real_to_real")),
            images=int(entry["images"]),
            change=(
                _number(entry.get("relative_difference")),
                _number(entry.get("relative_low")),
                _number(entry.get("relative_high")),
            ),
        )
        for metric in contents.report.get("metrics", ())
        for model in (contents.base, *contents.challengers)
        for label, entry in models.get(model, {}).get(metric, {}).items()
    ]


def _scores(contents: Contents, model: str) -> Mapping[str, Any]:
    held: Mapping[str, Any] = contents.report["models"].get(model, {}).get("scores", {})
    return held


def _result(contents: Contents, scorer: str, model: str) -> Result:
    held = _scores(contents, model)[scorer]
    return Result(
        scorer=scorer,
        model=model,
        mean=_number(held.get("mean")),
        stderr=_number(held.get("stderr")),
        difference=_number(held.get("difference")),
        difference_stderr=_number(held.get("difference_stderr")),
        difference_low=_number(held.get("difference_low")),
        difference_high=_number(held.get("difference_high")),
        win_rate=_number(held.get("win_rate")),
        low=_number(held.get("win_rate_low")),
        high=_number(held.get("win_rate_high")),
        is_share=scorer in contents.report.get("shares", ()),
    )


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)
