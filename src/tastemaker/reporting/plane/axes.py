"""Axes of the plane, two scores of a run, and the window of its pair rule."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tastemaker.config.datasets import PairConfig
from tastemaker.config.runs import RunConfig
from tastemaker.reporting.run_contents import Contents


@dataclass(frozen=True)
class AngleWindow:
    """Angles and threshold of pair rule `angle`.

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
    """Two scores as axes, and the choice of pairs on them.

    Args:
        fidelity: Column of the similarity to the subject's photographs; x, IS.
        prompt: Column of the similarity to the prompt; y, TS.
        window: None where the pairs were chosen by another rule than `angle`.
        share: `lambda` of the weighted score `lambda * TS + (1 - lambda) * IS`.
        zscored: True where the rule divided both scores by their standard deviation over the pool.
    """

    fidelity: str = "image_similarity"
    prompt: str = "text_similarity"
    window: AngleWindow | None = AngleWindow()
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
    if contents.config is None:
        return []
    pairing = getattr(contents.config, "pair", None)
    rule = pairing.rule if isinstance(pairing, PairConfig) else None
    options = rule.options if rule is not None else {}
    zscored = bool(options.get("zscored", False))
    # One without a partner spans no plane.
    images, texts = (
        _columns(contents.config, name) for name in ("image_similarity", "text_similarity")
    )
    judged = list(zip(images, texts, strict=False))
    if rule is not None and rule.name == "angle":
        window = AngleWindow(*(float(options[key]) for key in ("low", "high", "threshold")))
        own = Plane(options["fidelity"], options["prompt"], window, zscored=zscored)
    elif judged:
        own = Plane(*judged[0], None, _share(options, *judged[0]), zscored)
    else:
        return []
    others = [each for each in judged if each != (own.fidelity, own.prompt)]
    return [own, *(Plane(*each, None) for each in others)]


def _columns(config: RunConfig, name: str) -> list[str]:
    """Return the columns of the evaluation by a registered scorer."""
    return [each.column for each in config.evaluate.scorers if each.name == name]


def _share(options: Mapping[str, Any], fidelity: str, prompt: str) -> float:
    """Return the prompt's weight in the rule's weighted score; one half where it has none."""
    weights = options.get("weights", options.get("scorer"))
    if not isinstance(weights, Mapping) or set(weights) != {fidelity, prompt}:
        return 0.5
    total = float(weights[fidelity]) + float(weights[prompt])
    return float(weights[prompt]) / total if total > 0 else 0.5
