"""The results of votes as one self-contained HTML page."""

from __future__ import annotations

import math
from typing import Any

from markupsafe import Markup

from tastemaker.reporting.figures import model_colours
from tastemaker.reporting.pages import templates
from tastemaker.reporting.svg import COLOURS, inline_figure
from tastemaker.reporting.votes.models import Numbers
from tastemaker.reporting.votes.sentence import p_text

MINUS = "\N{MINUS SIGN}"


def render(name: str, results: Numbers) -> str:
    """Make the page.

    Args:
        name: Title: that of the study's folder.
        results: Results of its votes, as votes.json has them.

    Returns:
        HTML with everything inside: style and figures.
    """
    environment = templates("tastemaker.reporting.votes")
    environment.filters.update(
        fixed=_fixed, signed=_signed, percent=_percent, tone_of_share=_tone, p_value=_p_value
    )
    found = results["questions"]
    every = [model for each in found.values() for model in each.get("models", {})]
    first, *others = dict.fromkeys(every) or [""]
    colours = {**model_colours("", [first, *others])}
    page = environment.get_template("votes.html").render(
        kind="votes",
        name=name,
        facts={
            "Voters": results["voters"],
            "Votes": results["votes"],
            "Skipped": results["skipped"],
            "Questions": len(found),
        },
        results={**results, "questions": {key: _filled(each) for key, each in found.items()}},
        colours=colours,
        figures={
            key: strengths_figure(f"strengths-{number}", each["models"], colours)
            for number, (key, each) in enumerate(found.items())
            if each.get("models")
        },
    )
    return page.rstrip() + "\n"


def strengths_figure(name: str, models: Numbers, colours: dict[str, str]) -> Markup:
    """Draw strengths as dots with whiskers, the strongest on top.

    Args:
        name: Of the figure, unique on the page.
        models: Strength and interval by model.
        colours: Colour of each model.

    Returns:
        The SVG element.
    """
    rows = list(reversed(models.items()))
    with inline_figure(name, height=0.75 + 0.42 * len(rows)) as (axes, svg):
        axes.axvline(0.0, color=COLOURS["muted"], linewidth=1.2, dashes=(4, 3))
        for row, (model, held) in enumerate(rows):
            colour = COLOURS[colours[model]]
            axes.plot([held["low"], held["high"]], [row, row], color=colour, linewidth=2.4)
            axes.plot([held["strength"]], [row], "o", color=colour, markersize=8)
        axes.set_yticks(range(len(rows)), [model for model, _ in rows])
        axes.tick_params(axis="y", labelcolor=COLOURS["ink"])
        axes.set_ylim(-0.6, len(rows) - 0.4)
        axes.set_xlabel("log-odds")
        axes.grid(axis="y", visible=False)
    return Markup("".join(svg))


def _filled(found: Numbers) -> dict[str, Any]:
    """Give a question without models the keys that the template asks for."""
    unlinked = found.get("unlinked", [])
    linked = [name for name in found.get("models", {}) if name not in unlinked]
    return {
        "models": {},
        "win_rates": {},
        "differences": {},
        **found,
        "unlinked": unlinked,
        "first_linked": ", ".join(linked),
        "chosen_by": {"active": 0, **found["chosen_by"]},
    }


def _known(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _fixed(value: float | None, digits: int) -> str:
    return f"{value:z.{digits}f}".replace("-", MINUS) if _known(value) else "–"


def _signed(value: float | None, digits: int) -> str:
    return f"{value:+z.{digits}f}".replace("-", MINUS) if _known(value) else "–"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:z.1f}".replace("-", MINUS)


def _p_value(p: float) -> str:
    return p_text(p).removeprefix("p ").removeprefix("= ")


def _tone(found: Numbers) -> str:
    """Name the colour of a share: clearly above a half, clearly below, or neither."""
    return "better" if found["low"] > 0.5 else "worse" if found["high"] < 0.5 else "unclear"
