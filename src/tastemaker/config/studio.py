"""Options of `studio`: what is asked, how images are shown, which task comes next."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from tastemaker.config.sections import Section
from tastemaker.core.values import Name

MOST_IMAGES = 8
"""Images that can be judged at once."""

QUESTIONS = {
    "pair": "Which image is better?",
    "best_worst": "Which image is the best, and which the worst?",
    "rating": "How good is this image?",
}
"""Text of the question `overall` of each way of judging."""


class StudioConfig(Section):
    """Options of `studio`: people judge images on a local page."""

    output: str = Field(description="Folder of the study and its votes; the same goes on.")
    kind: Literal["pair", "best_worst", "rating"] = Field(
        "pair", description="Two images side by side, the best and the worst of several, or one."
    )
    images: int = Field(
        4, ge=3, le=MOST_IMAGES, description="Images at once, of kind=best_worst; fewer per prompt."
    )
    questions: dict[Name, Annotated[str, Field(min_length=1, max_length=500)]] = Field(
        {},
        description="Key to text: each is asked of the same images; default: one, `overall`.",
    )
    references: dict[Name, str] = Field(
        {}, description="Key of a question to the photographs shown beside it: a file or a folder."
    )
    labels: tuple[Name, ...] = Field(
        (), description="Name of each model, where there are several sources; default: folders'."
    )
    choose: Literal["random", "active"] = Field(
        "random", description="Next task: by chance, or the most uncertain under current votes."
    )
    explore: float = Field(
        0.1, gt=0, le=1, description="Share of active choice that is by chance after all."
    )
    num_tasks: int | None = Field(
        None,
        ge=1,
        description="Sets of images that each voter judges, the same for all where chosen by"
        " chance; repeats and gold items come on top; null: every one.",
    )
    repeats: float = Field(
        0.1, ge=0, le=0.5, description="Share of tasks shown twice: a voter's consistency."
    )
    gold: str | None = Field(
        None,
        description="Folder of pairs with sure verdicts, mixed in: a voter's attention.",
    )
    title: str = Field("Studio", max_length=100, description="Of the page.")
    seed: int = Field(0, ge=0, description="Seed that keys sides, order and repeats.")
    host: str = Field(
        "127.0.0.1", description="Address to listen on; any other lets other machines in."
    )
    port: int = Field(0, ge=0, le=65535, description="Port; 0: a free one.")
    browser: bool = Field(True, description="Open the page in the browser.")

    @model_validator(mode="after")
    def _belongs_together(self) -> StudioConfig:
        if self.gold is not None and self.kind != "pair":
            raise ValueError(f"gold items are pairs; kind={self.kind} takes none")
        strange = set(self.references) - set(self.asked)
        if strange:
            raise ValueError(f"references {sorted(strange)} belong to no question; name its key")
        return self

    @property
    def asked(self) -> dict[str, str]:
        """Key and text of every question."""
        return dict(self.questions) or {"overall": QUESTIONS[self.kind]}
