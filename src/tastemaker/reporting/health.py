"""Health checks: warnings about a run's numbers, with remedies."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

from tastemaker.evaluation.guidance import edge_warning
from tastemaker.storage.trained_prompts import shared_warning

ENOUGH_IMAGES = 32
"""Below this many images the 95% interval of a win rate near one half is over 30 points wide."""

ENOUGH_STEPS = 20
"""Below this many optimizer steps a tenth of them says nothing about a trend."""


def warnings(
    metrics: Sequence[Mapping[str, float]],
    report: Mapping[str, Any],
    training_scorers: Collection[str] = (),
    images: int | None = None,
) -> list[str]:
    """Return warnings about a run that went wrong or proves little.

    Args:
        metrics: Rows of `metrics.jsonl`, in order of steps; empty where nothing was trained.
        report: `report.json`.
        training_scorers: The scorers that training learned from.
        images: Images per model; default: the number of prompts in `report`.

    Returns:
        One warning per finding, each with its remedy; empty when all is well.

    Example:
        >>> warnings([], {"base": "base", "prompts": 500, "models": {}})
        []
    """
    count = int(report.get("prompts", 0)) if images is None else images
    return [
        *_gradients_not_finite(metrics),
        *_chosen_error_grew(metrics),
        *_reward_hacking(report, training_scorers),
        *_lost(report),
        *_trained_on(report),
        *_no_other_judge(report, training_scorers),
        *_few_images(count),
        *_guidance_at_the_edge(report),
        *_fewer_than_dimensions(report),
    ]


def _gradients_not_finite(metrics: Sequence[Mapping[str, float]]) -> Iterator[str]:
    steps = [int(row["step"]) for row in metrics if not math.isfinite(row.get("grad_norm", 0.0))]
    if steps:
        share = f"{len(steps)} of {len(metrics)} steps" if len(steps) > 1 else "one step"
        yield (
            f"The gradient norm was not finite in {share}, first at step {steps[0]}."
            " Train with bf16 or fp32 instead of fp16, lower the learning rate,"
            " or warm it up over more steps."
        )


def _chosen_error_grew(metrics: Sequence[Mapping[str, float]]) -> Iterator[str]:
    """Find the known failure of DPO: the margin grows while the policy forgets the chosen image."""
    tenth = len(metrics) // 10
    if len(metrics) < ENOUGH_STEPS:
        return
    chosen = _finite(metrics[-tenth:], "errors/chosen")
    first = _finite(metrics[:tenth], "rewards/margins")
    last = _finite(metrics[-tenth:], "rewards/margins")
    if len(chosen) < 2 or not first or not last:
        return
    mean, stderr = fmean(chosen), stdev(chosen) / math.sqrt(len(chosen))
    if mean > 2 * stderr and mean > 0 and fmean(last) > fmean(first):
        yield (
            "The margin grew, but only because rejected images got worse faster than chosen ones:"
            f" over the last {tenth} steps the policy's error on chosen images lies {mean:.2g}"
            f" (standard error {stderr:.1g}) above the reference's. Expect washed-out or broken"
            " images. Lower the learning rate, raise beta, or train for fewer steps."
        )


def _reward_hacking(report: Mapping[str, Any], training: Collection[str]) -> Iterator[str]:
    for model, scores in _challengers(report):
        won = [name for name in training if _bound(scores, name, "low") > 0.5]
        lost = [
            name for name in scores if name not in training and _bound(scores, name, "high") < 0.5
        ]
        if won and lost:
            yield (
                f"{_title(model)} wins by {_listed(won)}, which it was trained on, and loses"
                f" by {_listed(lost)}, which it was not: it may have learned to please the training"
                " scorer rather than people. Look at the strips. Lower the learning rate, raise"
                " beta if there is one, stop earlier, or train on several scorers."
            )


def _lost(report: Mapping[str, Any]) -> Iterator[str]:
    for model, scores in _challengers(report):
        lost = [name for name in scores if _bound(scores, name, "high") < 0.5]
        if lost:
            yield (
                f"{_title(model)} loses against the base by {_listed(lost)}: the whole 95% interval"
                " of the win rate lies below 50%. Lower the learning rate, raise beta if there is"
                " one, train for fewer steps, or check what training took for better."
            )


def _trained_on(report: Mapping[str, Any]) -> Iterator[str]:
    warning = shared_warning(report.get("prompts_trained_on") or 0, int(report.get("prompts", 0)))
    if warning:
        yield warning


def _no_other_judge(report: Mapping[str, Any], training: Collection[str]) -> Iterator[str]:
    measured = {name for _, scores in _challengers(report) for name in scores}
    if measured and measured <= set(training):
        yield (
            "Every scorer of the evaluation decided in training what is better: nothing here shows"
            " that the gain is more than that scorer's taste. Add another to evaluate.scorers."
        )


def _few_images(count: int) -> Iterator[str]:
    if count < ENOUGH_IMAGES:
        noun = "image" if count == 1 else "images"
        yield (
            f"Only {count} {noun} per model were compared, so the intervals are wide."
            f" Evaluate on {ENOUGH_IMAGES} or more: add prompts, or raise evaluate.num_images."
        )


def _guidance_at_the_edge(report: Mapping[str, Any]) -> Iterator[str]:
    for model, held in report.get("models", {}).items():
        if warning := edge_warning(model, held.get("guidance_search", ())):
            yield warning


def _fewer_than_dimensions(report: Mapping[str, Any]) -> Iterator[str]:
    base = report.get("models", {}).get(report.get("base", "base"), {})
    for features, held in base.get("frechet", {}).items():
        if held.get("images", math.inf) <= held.get("dimension", 0):
            yield (
                f"The Frechet distance of {features} was measured on {held['images']} images in"
                f" {held['dimension']} dimensions, where its covariances are singular: only its"
                " order is meaningful. Look at the kernel distance, or give more images."
            )


def _challengers(report: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for model, held in report.get("models", {}).items():
        if model != report.get("base", "base"):
            yield model, held.get("scores", {})


def _bound(scores: Mapping[str, Any], scorer: str, side: str) -> float:
    """Return one end of a win rate's interval; NaN, which no comparison holds for, if absent."""
    value = scores.get(scorer, {}).get(f"win_rate_{side}")
    return math.nan if value is None else float(value)


def _finite(rows: Sequence[Mapping[str, float]], key: str) -> list[float]:
    values = (row.get(key, math.nan) for row in rows)
    return [value for value in values if math.isfinite(value)]


def _title(model: str) -> str:
    return "The policy" if model == "policy" else f"Model {model}"


def _listed(names: Sequence[str]) -> str:
    return " and ".join(names) if len(names) < 3 else f"{', '.join(names[:-1])} and {names[-1]}"
