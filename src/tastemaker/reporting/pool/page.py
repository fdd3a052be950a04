"""The contents of a pool or of pairs as one self-contained HTML page."""

from __future__ import annotations

from tastemaker.reporting.figures import distributions
from tastemaker.reporting.pages import templates
from tastemaker.reporting.pool.contents import Contents

COLOURS = {"all": "policy", "chosen": "chosen", "rejected": "rejected"}


def render(contents: Contents) -> str:
    """Make the page.

    Args:
        contents: Of a folder.

    Returns:
        HTML with everything inside: style, figures and images.
    """
    figures = {
        name: distributions(name, held, COLOURS)
        for name, sides in contents.scores.items()
        if (held := {side: values for side, values in sides.items() if len(values)})
    }
    page = (
        templates("tastemaker.reporting.pool")
        .get_template("sheet.html")
        .render(
            kind="contact sheet",
            name=contents.name,
            facts=contents.facts,
            contents=contents,
            figures=figures,
            sides={
                name: {side: COLOURS[side] for side in sides}
                for name, sides in contents.scores.items()
            },
            paired=any(len(card.images) > 1 for card in contents.cards),
        )
    )
    return page.rstrip() + "\n"
