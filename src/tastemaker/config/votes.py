"""Typed section of `votes`: what people's votes become."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from tastemaker.config.datasets import HUMAN
from tastemaker.config.sections import Section
from tastemaker.core.values import Name, Names


class VotesConfig(Section):
    """Options of `votes`: votes to a page, to JSON, and to columns of a pool."""

    output: str | None = Field(
        None, description="Folder of votes.json and votes.html; null: that of the only study."
    )
    pool: Annotated[str | None, Names("pool")] = Field(
        None,
        description="Add the votes to this pool as columns of scores: `human`, and `human_VOTER`"
        " of each voter.",
    )
    column: Name = Field(HUMAN, description="Name of those columns.")
    question: str | None = Field(
        None, description="Question whose votes they are; null: the overall one, or the only one."
    )
