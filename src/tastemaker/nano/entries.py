"""`nano` in the tables: a model, two scorers and three prompt sets, by name only."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from tastemaker.nano import JUDGE, MODEL, PREFERENCE
from tastemaker.registry import MODELS, PROMPTS, SCORERS

if TYPE_CHECKING:
    from tastemaker.scorers.base import Scorer

Number = Annotated[int, Field(ge=1, le=4000, description="Prompts in the set.")]
Seed = Annotated[int, Field(ge=0, description="Equal seeds give equal sets.")]


@MODELS.register("nano")
def nano() -> Path:
    """The folder of the embedded pipeline."""
    return MODEL


@SCORERS.register("nano_preference")
def nano_preference() -> Scorer:
    """The embedded training scorer; a difference of scores is a log-odds of preference."""
    return _clip(PREFERENCE)


@SCORERS.register("nano_judge")
def nano_judge() -> Scorer:
    """The embedded judge, fitted apart on other data: never train on it."""
    return _clip(JUDGE)


def _clip(folder: Path) -> Scorer:
    from tastemaker.scorers.clip import ClipScorer

    return ClipScorer(model=str(folder))


def _register(split: str) -> None:
    @PROMPTS.register(f"nano_{split}")
    def prompt_set(*, number: Number = 128, seed: Seed = 0) -> list[str]:
        """Captions of scenes whose combinations belong to this split alone."""
        from tastemaker.nano.captions import prompts

        return prompts(split, number, seed)


for _split in ("train", "validation", "test"):
    _register(_split)
