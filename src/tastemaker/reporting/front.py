"""Figure of the guidance search: adherence against diversity, or against the scale."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from markupsafe import Markup

from tastemaker.reporting.run_contents import Contents
from tastemaker.reporting.svg import COLOURS, inline_figure


@dataclass(frozen=True)
class Front:
    """The guidance search of a run.

    Args:
        svg: The figure.
        scorer: Scorer that picked the scales.
        prompts: Number of its prompts.
        features: Features that diversity is measured in; None where it was not.
        chosen: Scale of each model.
    """

    svg: Markup
    scorer: str
    prompts: int
    features: str | None
    chosen: dict[str, float]


def front(contents: Contents, colours: Mapping[str, str]) -> Front | None:
    """Draw the search: a line per model, its points labelled by scale, the chosen one larger.

    Args:
        contents: The run.
        colours: Colour of each model.

    Returns:
        The figure; None for a run without a search.
    """
    search = contents.report.get("guidance_search")
    if search is None:
        return None
    models = contents.report["models"]
    points = {name: models[name]["guidance_search"] for name in colours if name in models}
    chosen = {name: models[name]["guidance_scale"] for name in points}
    features = next(iter(points[contents.base][0].get("diversity", {})), None)
    with inline_figure("front") as (axes, svg):
        for name, found in points.items():
            colour = COLOURS[colours[name]]
            scales = [point["guidance_scale"] for point in found]
            x = [point["diversity"][features]["value"] for point in found] if features else scales
            y = [point["mean"] for point in found]
            sizes = [9 if scale == chosen[name] else 4 for scale in scales]
            axes.plot(x, y, color=colour)
            for across, up, scale, size in zip(x, y, scales, sizes, strict=True):
                axes.plot([across], [up], "o", color=colour, markersize=size)
                axes.annotate(
                    f"{scale:g}",
                    (across, up),
                    (0, 7),
                    textcoords="offset points",
                    ha="center",
                    fontsize=8,
                    color=colour,
                )
        axes.set_xlabel(f"diversity in {features}" if features else "guidance scale")
        axes.set_ylabel(search["scorer"])
        axes.margins(0.12)
    return Front(Markup("".join(svg)), search["scorer"], search["prompts"], features, chosen)
