"""A whole run: what every recipe's configuration shares, and the sections of each kind.

The annotation of a recipe's first parameter is its kind of run.
"""

from __future__ import annotations

from inspect import signature
from typing import Any, get_type_hints

from pydantic import Field, model_validator

from tastemaker import registry
from tastemaker.sections import (
    Device,
    EvaluateConfig,
    GenerateConfig,
    ImportConfig,
    PairConfig,
    ReportConfig,
    ScoreConfig,
    Section,
    TrainConfig,
    section_class,
)


class RunConfig(Section):
    """What every run has: a recipe, a name, and what its sections inherit."""

    recipe: str = Field("diffusion_dpo", description="Registered recipe.")
    name: str = Field(description="Folder of the run below `output`.", min_length=1)
    output: str = Field("runs", description="Folder that holds all runs.")
    plugins: tuple[str, ...] = Field((), description="Python files with your own entries.")
    model: str = Field(description="Model for every section that does not name its own.")
    seed: int = Field(0, ge=0, description="Seed for every section that does not set its own.")
    device: Device = Field("auto", description="Device of sections that do not set their own.")
    evaluate: EvaluateConfig
    report: ReportConfig = ReportConfig()

    @model_validator(mode="before")
    @classmethod
    def _inherit(cls, data: Any) -> Any:
        """Hand model, seed and device down to the sections that do not set their own."""
        if not isinstance(data, dict):
            return data
        down = {key: data[key] for key in ("model", "seed", "device") if key in data}
        if "model" in down:
            down["base"] = down["model"]
        return data | _handed_down(cls, data, down)


class PreferenceRun(RunConfig):
    """Five rooms in a row: candidates of the model's own or compared by people, one training."""

    data: ImportConfig | None = Field(None, description="Compared images, in place of generate.")
    generate: GenerateConfig | None = Field(None, description="The model's own candidates.")
    score: ScoreConfig | None = Field(
        None, description="Scorers of the candidates; imported ones have people's verdicts already."
    )
    pair: PairConfig
    train: TrainConfig

    @model_validator(mode="after")
    def _has_candidates(self) -> PreferenceRun:
        if (self.data is None) == (self.generate is None):
            raise ValueError("candidates come from `generate` or from `data`: give one of the two")
        if self.generate is not None and self.score is None:
            raise ValueError("'score' is required: generated candidates have no scores")
        return self


def run_class(recipe: str) -> type[RunConfig]:
    """Return the kind of run that a recipe takes: the annotation of its first parameter.

    Args:
        recipe: A registered recipe.

    Returns:
        Its class.

    Raises:
        TastemakerError: No such recipe.
    """
    entry = registry.RECIPES.entry(recipe)
    kind: type[RunConfig] = get_type_hints(entry)[next(iter(signature(entry).parameters))]
    return kind


def _handed_down(kind: type[Section], data: dict[str, Any], down: dict[str, Any]) -> dict[str, Any]:
    """The sections of `data` with what they inherit, at every depth."""
    handed = {}
    for name, field in kind.model_fields.items():
        section = section_class(field.annotation)
        given = data.get(name, {})
        if section is None or not isinstance(given, dict):
            continue
        if field.default is None and name not in data:
            continue
        shared = {key: value for key, value in down.items() if key in section.model_fields}
        inner = {**shared, **given}
        handed[name] = inner | _handed_down(section, inner, down)
    return handed
