"""Which two scores of a run span the plane, and which window its pair rule cut out of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tastemaker.reporting.run_contents import Contents, columns


@dataclass(frozen=True)
class Window:
    """What pair rule `angle` keeps.

    Args:
        low: Least angle in degrees; 0 is pure fidelity, 90 pure prompt.
        high: Greatest angle in degrees.
        threshold: The prompt's score must rise by more than this.
    """

    low: float = 20.0
    high: float = 70.0
    threshold: float = 0.0


@dataclass(frozen=True)
class Plane:
    """Two scores as axes, and how pairs were chosen on them.

    Args:
        fidelity: Column of the similarity to the subject's photographs; x, IS.
        prompt: Column of the similarity to the prompt; y, TS.
        window: None where the pairs were chosen by another rule than `angle`.
        share: `lambda` of the weighted score `lambda * TS + (1 - lambda) * IS`.
        zscored: Whether the rule divided both scores by their standard deviation over the pool.
    """

    fidelity: str = "image_similarity"
    prompt: str = "text_similarity"
    window: Window | None = Window()
    share: float = 0.5
    zscored: bool = False


def planes_of(contents: Contents) -> list[Plane]:
    """Find the planes of a run: that of its pair rule first, then those of scorers that only judge.

    Args:
        contents: The run.

    Returns:
        Of rule `angle` its own axes, and every image similarity of the evaluation with the text
        similarity in the same place; empty where the configuration does not name both scores.
    """
    rule = contents.setting("pair", "rule")
    rule = rule if isinstance(rule, Mapping) else {}
    zscored = bool(rule.get("zscored", False))
    # One without a partner spans no plane.
    images, texts = (_judges(contents, name) for name in ("image_similarity", "text_similarity"))
    judged = list(zip(images, texts, strict=False))
    if rule.get("name") == "angle":
        given = {key: float(rule[key]) for key in ("low", "high", "threshold") if key in rule}
        own = Plane(rule["fidelity"], rule["prompt"], Window(**given), zscored=zscored)
    elif judged:
        own = Plane(*judged[0], None, _share(rule, *judged[0]), zscored)
    else:
        return []
    others = [each for each in judged if each != (own.fidelity, own.prompt)]
    return [own, *(Plane(*each, None) for each in others)]


def _judges(contents: Contents, name: str) -> list[str]:
    """Columns of the evaluation by a registered scorer."""
    scorers = contents.setting("evaluate", "scorers") or []
    return [
        column
        for entry, column in zip(scorers, columns(scorers), strict=True)
        if (entry["name"] if isinstance(entry, Mapping) else entry) == name
    ]


def _share(rule: Mapping[str, Any], fidelity: str, prompt: str) -> float:
    """The weight of the prompt in the rule's weighted score; one half where it has none."""
    weights = rule.get("weights", rule.get("scorer"))
    if not isinstance(weights, Mapping) or set(weights) != {fidelity, prompt}:
        return 0.5
    total = float(weights[fidelity]) + float(weights[prompt])
    return float(weights[prompt]) / total if total > 0 else 0.5
