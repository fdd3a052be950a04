"""The overview of a pool or of pairs as one self-contained HTML page."""

from __future__ import annotations

from tastemaker.reporting.figures import distributions
from tastemaker.reporting.pages import templates
from tastemaker.reporting.pool.overview import Overview

COLOURS = {"all": "policy", "chosen": "chosen", "rejected": "rejected"}


def render(overview: Overview) -> str:
    """Make the page.

    Args:
        overview: Overview of a folder.

    Returns:
        HTML with everything inside: style, figures and images.
    """
    figures = {
        name: distributions(name, held, COLOURS)
        for name, sides in overview.scores.items()
        if (held := {side: values for side, values in sides.items() if len(values)})
    }
    page = (
        templates("tastemaker.reporting.pool")
        .get_template("sheet.html")
        .render(
            kind="contact sheet",
            name=overview.name,
            facts=overview.facts,
            overview=overview,
            figures=figures,
            sides={
                name: {side: COLOURS[side] for side in sides}
                for name, sides in overview.scores.items()
            },
            paired=any(len(card.images) > 1 for card in overview.cards),
        )
    )
    return page.rstrip() + "\n"
