"""A `report.json` as text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tastemaker.storage.kept import SCORES
from tastemaker.storage.results import read_report


def summary(report: Path) -> str:
    """Format a `report.json` as text, one line per model and scorer.

    Args:
        report: The file.

    Returns:
        Lines with mean, paired difference to the base and win rate.

    Raises:
        TastemakerError: The file is missing or damaged.
    """
    data = read_report(report)
    counts = f"{data['prompts']} prompts, {data['images']} images per model"
    shared = data.get("prompts_trained_on")
    if shared is not None:
        counts += f", {shared or 'none'} of the prompts trained on"
    lines = [f"{counts}; standard errors and 95% intervals clustered by prompt"]
    if (scores := report.with_name(SCORES)).is_file():
        lines.append(
            f"  computed again from each image's scores by tastemaker.compare({str(scores)!r})"
        )
    lines += _drawn(data)
    shares = data.get("shares", ()) if len(data["models"]) > 1 else ()
    for scorer in data["models"][data["base"]]["scores"]:
        lines += _shares(data, scorer) if scorer in shares else _means(data, scorer)
    return "\n".join([*lines, *_diversity(data)])


def share_text(data: Mapping[str, Any], scorer: str, model: str) -> str:
    """Compare the shares of two models' images that a scorer of 0 or 1 gives 1.

    Args:
        data: Content of a `report.json`.
        scorer: One of its `shares`.
        model: The model to compare with the base.

    Returns:
        `base 65.6 % -> policy 70.1 % (+4.5 [+1.2, +7.8] points)`.
    """
    base = data["base"]
    score = data["models"][model]["scores"][scorer]
    before = 100 * data["models"][base]["scores"][scorer]["mean"]
    keys = ("difference", "difference_low", "difference_high")
    points = {key: 100 * score[key] for key in keys if score.get(key) is not None}
    gain = f"{points['difference']:+.1f}{_ends(points, 'difference', '.1f')} points"
    return f"{base} {before:.1f} % -> {model} {100 * score['mean']:.1f} % ({gain})"


def _shares(data: Mapping[str, Any], scorer: str) -> Iterator[str]:
    for name in data["models"]:
        if name != data["base"]:
            yield f"  {scorer:<16} share of images: {share_text(data, scorer, name)}"


def _means(data: Mapping[str, Any], scorer: str) -> Iterator[str]:
    for name, model in data["models"].items():
        score = model["scores"][scorer]
        line = f"  {scorer:<16} {name:<8} {score['mean']:8.4f}{_error(score['stderr'])}"
        if "win_rate" in score:
            low, high = score["win_rate_low"], score["win_rate_high"]
            line += f"   {score['difference']:+.4f}{_ends(score, 'difference', '.4f')}"
            line += f"   wins {score['win_rate']:.1%} of images [{low:.1%}, {high:.1%}]"
        yield line


def _drawn(data: Mapping[str, Any]) -> Iterator[str]:
    """Say how each model was drawn, where not all were drawn alike."""
    search = data.get("guidance_search")
    for name, model in data["models"].items():
        if "drawn_with" in model:
            yield f"  {name} was drawn with {model['drawn_with']}"
        if search:
            scales = ", ".join(f"{point['guidance_scale']:g}" for point in model["guidance_search"])
            yield (
                f"  {name} was drawn at guidance {model['guidance_scale']:g}, its best of {scales}"
                f" by {search['scorer']} on {search['prompts']} other prompts"
            )


def _diversity(data: Mapping[str, Any]) -> Iterator[str]:
    for name, model in data["models"].items():
        for label, entry in model.get("diversity", {}).items():
            line = f"  diversity        {name:<8} {entry['value']:8.4f}{_error(entry['stderr'])}"
            if "relative_difference" in entry:
                line += f"   {entry['relative_difference']:+.1%}{_ends(entry, 'relative', '.1%')}"
            yield f"{line}   in {label}"


def _error(value: float | None) -> str:
    return "" if value is None else f" +- {value:.4f}"


def _ends(of: Mapping[str, Any], name: str, digits: str) -> str:
    low, high = of.get(f"{name}_low"), of.get(f"{name}_high")
    return "" if low is None or high is None else f" [{low:+{digits}}, {high:+{digits}}]"
