"""Sections inside a training on pairs."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tastemaker.config.sections import Section


class StatisticsConfig(Section):
    """Statistics matching: keeps the channels' means (colours) of the policy in place."""

    weight: float = Field(
        1e4, ge=0, description="Factor on the term; small models need more, e.g. 1e6."
    )
    estimate: Literal["step", "x0"] = Field(
        "step", description="Compare after one denoising step, or the one-step estimate of x_0."
    )
    moments: tuple[Literal["mean", "std"], ...] = Field(
        ("mean",), min_length=1, description="Moments over the pixels of each latent channel."
    )
    target: Literal["reference", "data"] = Field(
        "reference", description="Whose moments: the reference's estimate, or the chosen image's."
    )
    norm: Literal["squared", "absolute"] = Field("squared", description="Of the differences.")


class CurriculumConfig(Section):
    """Easy pairs first: those with the widest gap of scores."""

    chunks: int = Field(6, ge=1, description="Parts of the pairs, in order of falling gap.")
    steps_per_chunk: int = Field(
        500, ge=1, description="Optimizer steps until the next part is added."
    )


class GuardConfig(Section):
    """Against the known divergence: the margin grows while both errors grow."""

    chosen_penalty: float = Field(
        0.0, ge=0, description="Inside the sigmoid: this times the growth of the chosen error."
    )
    safeguard: float | None = Field(
        None, ge=0, lt=1, description="Scale the rejected gradient, with this slack; off: null."
    )
    safeguard_over: Literal["pair", "batch"] = Field(
        "pair",
        description="One share per pair; or per micro-batch, as published (arXiv 2511.03317).",
    )
    max_gradient: float | None = Field(
        None, gt=0, description="Stop where the gradient norm before clipping exceeds this."
    )
