"""`nano` in the tables: a model, four scorers, prompt sets and subjects, by name only."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from tastemaker.core.registry import CAPTIONED, MODELS, PROMPTS, SCORERS, SUBJECTS
from tastemaker.datasets.captioned import Captioned
from tastemaker.datasets.items import Source
from tastemaker.nano import JUDGE, MODEL, PREFERENCE
from tastemaker.nano import SUBJECTS as NANO_SUBJECTS
from tastemaker.scorers.base import PixelScorer

Number = Annotated[int, Field(ge=1, le=4000, description="Prompts in the set.")]
Seed = Annotated[int, Field(ge=0, description="Equal seeds give equal sets.")]


@MODELS.register("nano")
def nano() -> Path:
    """The folder of the embedded pipeline."""
    return MODEL


@SCORERS.register("nano_preference")
def nano_preference() -> PixelScorer:
    """The embedded training scorer; a difference of scores is a log-odds of preference."""
    return _clip(PREFERENCE)


@SCORERS.register("nano_judge")
def nano_judge() -> PixelScorer:
    """The embedded judge, fitted apart on other data: never train on it."""
    return _clip(JUDGE)


Attribute = Annotated[
    Literal["all", "concept", "count", "only", "place", "size", "background", "style"],
    Field(description="What of the prompt is asked; all: everything but the style."),
]
Obeyed = Annotated[
    bool, Field(description="1 where the picture obeys and 0 where not, and no probability.")
]


@SCORERS.register("nano_checker")
def nano_checker(*, attribute: Attribute = "all", obeyed: Obeyed = False) -> PixelScorer:
    """The log-probability that a picture shows what its prompt asks: pair and train by it."""
    return _obedience("checker", attribute, obeyed)


@SCORERS.register("nano_examiner")
def nano_examiner(*, attribute: Attribute = "all", obeyed: Obeyed = False) -> PixelScorer:
    """The same by another network, learned apart: never pair, train or search by it."""
    return _obedience("examiner", attribute, obeyed)


def _obedience(name: str, attribute: str, obeyed: bool) -> PixelScorer:
    from tastemaker.nano.obedience import Obedience

    return Obedience(name, attribute, obeyed)


def _clip(folder: Path) -> PixelScorer:
    from tastemaker.scorers.clip import ClipScorer

    return ClipScorer(model=str(folder))


@CAPTIONED.register("nano_scenes")
def nano_scenes(
    *,
    number: Annotated[int, Field(ge=1, description="Scenes in the set.")] = 1024,
    split: Annotated[
        Literal["train", "validation", "test"], Field(description="Whose combinations they show.")
    ] = "train",
    seed: Seed = 0,
    work: Annotated[
        str | None, Field(description="Folder that keeps the art; null: one in the user's cache.")
    ] = None,
) -> Source[Captioned]:
    """Scenes drawn from the art that the embedded model learned from, 64x64 pixels.

    Needs npm and the extra `nano` where the art is not in the folder yet.
    """
    from tastemaker.nano.drawn import drawn_scenes

    return Source([], drawn_scenes(split, number, seed, Path(work) if work else None))


def _register(split: str) -> None:
    @PROMPTS.register(f"nano_{split}")
    def prompt_set(*, number: Number = 128, seed: Seed = 0) -> list[str]:
        """Captions of scenes whose combinations belong to this split alone."""
        from tastemaker.nano.captions import prompts

        return prompts(split, number, seed)


def _register_subject(folder: Path) -> None:
    @SUBJECTS.register(f"nano_{folder.name}")
    def subject() -> Path:
        """Five pictures of a character in a style that the embedded model never saw."""
        return folder


for _folder in sorted(NANO_SUBJECTS.glob("*/")):
    _register_subject(_folder)

for _split in ("train", "validation", "test"):
    _register(_split)
