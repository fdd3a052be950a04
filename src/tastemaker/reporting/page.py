"""Puts the page together: reads the run, draws its figures, fills the template."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from tastemaker.config.choices import Choice
from tastemaker.config.sections import ReportConfig
from tastemaker.reporting import credit, curves, figures, health, samples, summary
from tastemaker.reporting.front import front
from tastemaker.reporting.images import Thumbnail, thumbnail
from tastemaker.reporting.pages import templates
from tastemaker.reporting.plane.report import plane_report
from tastemaker.reporting.run_contents import Contents, read
from tastemaker.storage.run_dir import RunDir

MINUS = "\N{MINUS SIGN}"

MOST_SHEETS = 8
"""Of more validation sheets, an evenly spaced choice is shown."""

SHEET = 768
"""Longest side of a validation sheet in pixels."""


@dataclass(frozen=True)
class Distribution:
    """Scores of all models under one scorer, drawn."""

    scorer: str
    svg: Markup


@dataclass(frozen=True)
class Sheet:
    """A validation sheet and the optimizer step it was drawn at."""

    step: int
    image: Thumbnail


def render(config: ReportConfig, run: RunDir) -> str:
    """Make the page of a finished run.

    Args:
        config: How many strips and pairs to show.
        run: The run.

    Returns:
        HTML with everything inside: styles, figures and images.

    Raises:
        TastemakerError: The run has no `report.json`, or one of its files is torn.
    """
    contents = read(run)
    environment = templates()
    environment.filters["signed"] = _signed
    environment.filters["fixed"] = _fixed
    environment.filters["tone"] = _tone
    page = environment.get_template("report.html").render(
        kind="report",
        **_headline(contents),
        **_results(contents),
        plane=plane_report(contents, config.strips),
        **_training(contents),
        **_images(config, contents),
    )
    return page.rstrip() + "\n"


def _headline(contents: Contents) -> dict[str, Any]:
    sentence, tone = summary.verdict(contents)
    images = [len(contents.shared_rows(model)) for model in contents.challengers]
    compared = max(images, default=0) or None
    config, training = contents.config, contents.training
    facts = {
        "Recipe": config and config.recipe,
        "Model": config and (training.model if training else config.model),
        "Loss": _with_options(getattr(training, "loss", None)),
        "Credit": _with_options(getattr(training, "credit", None)),
        "Reward": _with_options(getattr(training, "scorer", None)),
        "Steps": len(contents.metrics) or None,
        "Prompts": contents.report.get("prompts"),
        "Images per model": compared,
    }
    return {
        "name": contents.name,
        "facts": {label: value for label, value in facts.items() if value is not None},
        "verdict": sentence,
        "tone": tone,
        "warnings": health.warnings(
            contents.metrics, contents.report, contents.training_scorers, compared
        ),
        "config_text": contents.run.config.read_text("utf-8") if contents.config else "",
        "environment": contents.environment,
    }


def _results(contents: Contents) -> dict[str, Any]:
    colours = figures.model_colours(contents.base, contents.challengers)
    rows = summary.results(contents)
    intervals = [
        figures.Interval(
            label=row.scorer if len(contents.challengers) == 1 else f"{row.scorer} · {row.model}",
            colour=colours[row.model],
            value=row.win_rate,
            low=row.low,
            high=row.high,
        )
        for row in rows
        if row.has_win_rate
    ]
    return {
        "results": rows,
        "decimals": {
            scorer: max(summary.decimals(row.stderr) for row in rows if row.scorer == scorer)
            for scorer in contents.scorers
        },
        "win_rates": figures.win_rates(intervals) if intervals else None,
        "drawn_with": summary.drawn_with(contents),
        "measures": summary.measures(contents),
        "distributions": _distributions(contents, colours),
        "front": front(contents, colours),
        "colours": colours,
        "base": contents.base,
        "training_scorers": contents.training_scorers,
    }


def _distributions(contents: Contents, colours: dict[str, str]) -> list[Distribution]:
    drawn = []
    for scorer in contents.scorers:
        scores = {}
        for model in colours:
            held = [row.get(scorer) for row in contents.scores.get(model, {}).values()]
            values = np.array([value for value in held if value is not None], dtype=np.float64)
            values = values[np.isfinite(values)]
            if len(values):
                scores[model] = values
        if scores:
            drawn.append(Distribution(scorer, figures.distributions(scorer, scores, colours)))
    return drawn


def _training(contents: Contents) -> dict[str, Any]:
    loss = getattr(contents.training, "loss", None)
    return {
        "curves": curves.draw(contents.metrics, loss and loss.name),
        "credit": credit.panels(contents.run.policy),
        "window": figures.smoothing_window(len(contents.metrics)),
        "sheets": _sheets(contents.run.policy / "validation"),
    }


def _images(config: ReportConfig, contents: Contents) -> dict[str, Any]:
    strips, ranked, shared, gained = samples.strips(contents, config.strips)
    best, worst, total = samples.best_and_worst_pairs(contents, config.pairs)
    base_scores = contents.scores.get(contents.base, {}).values()
    spread = {
        scorer: float(
            np.nanstd([row[scorer] for row in base_scores if row.get(scorer) is not None] or [0])
        )
        for scorer in contents.scorers
    }
    return {
        "strips": strips,
        "ranked": ranked,
        "shared": shared,
        "gained": gained,
        "judge": contents.ranking_scorer,
        "strip_decimals": {name: summary.decimals(value) for name, value in spread.items()},
        "best_pairs": best,
        "worst_pairs": worst,
        "total_pairs": total,
    }


def _sheets(folder: Path) -> list[Sheet]:
    files = {
        int(path.stem.removeprefix("step-")): path
        for path in folder.glob("step-*.png")
        if path.stem.removeprefix("step-").isdecimal()
    }
    steps = sorted(files)
    shown = [steps[place] for place in samples.quantiles(len(steps), MOST_SHEETS)]
    return [Sheet(step, thumbnail(files[step].read_bytes(), SHEET)) for step in shown]


def _with_options(choice: Choice | None) -> str | None:
    """Format a named choice as `dpo (beta 2000)`."""
    if choice is None:
        return None
    options = [f"{key} {value}" for key, value in choice.options.items() if value is not None]
    return f"{choice.name} ({', '.join(options)})" if options else choice.name


def _fixed(value: float, digits: int) -> str:
    """Write a number with fixed decimals; a dash where nothing was measured."""
    return f"{value:z.{digits}f}".replace("-", MINUS) if math.isfinite(value) else "–"


def _signed(value: float, digits: int) -> str:
    """Write a difference with its sign; a dash where nothing was measured."""
    return f"{value:+z.{digits}f}".replace("-", MINUS) if math.isfinite(value) else "–"


def _tone(value: float, digits: int) -> str:
    """Name the colour of a difference; one that is printed as zero has none."""
    seen = round(value, digits)
    return "better" if seen > 0 else "worse" if seen < 0 else "unclear"
