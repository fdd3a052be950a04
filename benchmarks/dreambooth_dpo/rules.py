"""The rows of the comparison: models that cost drawing alone, and pair rules to train by."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

IS, TS = "image_similarity", "text_similarity"
LENGTHS = (75, 150, 300)
"""Optimizer steps of personalisation: the front of lengths."""
LENGTH = 300
"""Steps of the model that all rows begin from."""
SCALES = (0.6, 0.8, 1.2)
"""Factors on the personalised LoRA beside 1: the front of scales."""


def angle(low: float, high: float) -> dict[str, Any]:
    """Build the paper's rule; scores in units of their spread over the pool."""
    axes = {"fidelity": IS, "prompt": TS, "low": low, "high": high}
    return {"name": "angle", **axes, "zscored": True, "max_pairs": 16}


def ordered(weight: float) -> dict[str, Any]:
    """Build a rule of all pairs by `weight * TS + (1 - weight) * IS`, the widest gaps first."""
    weights = {name: value for name, value in {TS: weight, IS: 1 - weight}.items() if value}
    return {"name": "threshold", "scorer": weights, "gap": 0.0, "zscored": True, "max_pairs": 16}


@dataclass(frozen=True)
class Row:
    """One model of the table.

    Attributes:
        steps: Of its personalisation; 0 is the base itself.
        scale: Factor on the personalised LoRA while drawing.
        rule: Pair rule of the training that follows; None trains nothing.
        images: Images per prompt and round, of which pairs are chosen.
        rounds: Rounds of drawing and training, each with its own part of the prompts.
        main: Run for every subject before any row that is not.
    """

    steps: int = LENGTH
    scale: float = 1.0
    rule: Mapping[str, Any] | None = None
    images: int = 16
    rounds: int = 1
    main: bool = True


PERSONALISED = "personalised"
ROWS: dict[str, Row] = {
    PERSONALISED: Row(),
    "angle 20 to 70": Row(rule=angle(20, 70)),
    "weighted, lambda .5": Row(rule=ordered(0.5)),
    **{f"{PERSONALISED}, LoRA x {scale}": Row(scale=scale) for scale in SCALES},
    **{f"{PERSONALISED}, {steps} steps": Row(steps) for steps in LENGTHS if steps != LENGTH},
    "angle 20 to 70, two rounds, half the images": Row(rule=angle(20, 70), images=8, rounds=2),
    "fidelity alone": Row(rule=ordered(0.0)),
    "prompt alone": Row(rule=ordered(1.0)),
    "nano": Row(steps=0),
    "angle 20 to 70, half the images": Row(rule=angle(20, 70), images=8, main=False),
    "angle 0 to 45": Row(rule=angle(0, 45), main=False),
    "angle 45 to 90": Row(rule=angle(45, 90), main=False),
}


def slug(name: str) -> str:
    """Return a row's name as a folder's."""
    return "".join(each if each.isalnum() else "-" for each in name)
