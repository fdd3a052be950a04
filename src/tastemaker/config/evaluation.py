"""Options of `evaluate`."""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated

from pydantic import Field, field_validator, model_validator

from tastemaker.config.choices import Choice, Judges, Metric, Prompts
from tastemaker.config.sections import AdapterConfig, Model, SamplingConfig, Section
from tastemaker.core.errors import TastemakerError, nearest
from tastemaker.core.values import Names


class GuidanceSearchConfig(Section):
    """Guidance of each judged model: its own best of a grid, on prompts that judge nothing."""

    guidance_scales: tuple[Annotated[float, Field(ge=0)], ...] = Field(
        min_length=2, description="Scales that every model, the base too, is drawn at."
    )
    prompts: Prompts = Field(
        description="Validation prompts, none of the evaluation's: a file or a named set."
    )
    num_images: int = Field(1, ge=1, description="Images per prompt, model and scale.")
    scorer: str = Field(
        description="Column of `evaluate.scorers` whose highest mean picks the scale; not the"
        " judge's."
    )

    @field_validator("guidance_scales")
    @classmethod
    def _scales_differ(cls, scales: tuple[float, ...]) -> tuple[float, ...]:
        if len(set(scales)) < len(scales):
            raise ValueError(f"{list(scales)} has a scale twice")
        return scales


class EvaluateConfig(SamplingConfig):
    """Options of `evaluate`: policy against base on equal prompts and seeds."""

    base: Model = Field(description="The model to beat: name, hub id or folder.")
    prompts: Prompts = Field(
        description="Prompts that training does not see: a file or a named set."
    )
    num_images: int = Field(1, ge=1, description="Images per prompt and model.")
    adapter: AdapterConfig = Field(
        AdapterConfig(), description="Scale and reach of the LoRA of the final model, `policy`."
    )
    adapters: dict[str, AdapterConfig] = Field(
        {}, description="The same for other judged models, by name, e.g. {easy: {scale: 0.5}}."
    )
    real: Annotated[str | None, Names("pool")] = Field(
        None, description="Pool of held-out real images, for distances and hues."
    )
    features: Annotated[tuple[str, ...], Names("features")] = Field(
        (),
        description="Features for distances to real images and diversity: a scorer, CLIP, file,"
        " inception, inception:FILE (its weights).",
    )
    metrics: tuple[Metric, ...] = Field(
        (Choice(name="kernel"), Choice(name="frechet")),
        description="Registered metrics of each model's images; distances need `real` and"
        " `features`, diversity `features` and `num_images` of 2 or more.",
    )
    scorers: Judges = Field(description="Registered scorers.")
    judge: str | None = Field(
        None,
        description="Column of `scorers` that decides; default: the first that nothing was trained,"
        " paired or searched with.",
    )
    guidance_search: GuidanceSearchConfig | None = Field(
        None,
        description="Draw each model at its own best guidance of a grid; null: all at"
        " `guidance_scale`.",
    )

    @model_validator(mode="after")
    def _judge_scores(self) -> EvaluateConfig:
        columns = [scorer.column for scorer in self.scorers]
        if self.judge is not None and self.judge not in columns:
            raise ValueError(
                f"judge: no scorer gives {self.judge!r}. {nearest(self.judge, columns)}"
            )
        return self

    @model_validator(mode="after")
    def _judge_does_not_search(self) -> EvaluateConfig:
        if self.guidance_search is None:
            return self
        by = {scorer.column: scorer.network for scorer in self.scorers}
        searched = self.guidance_search.scorer
        if searched not in by:
            raise ValueError(
                f"guidance_search.scorer: no scorer gives {searched!r}. {nearest(searched, by)}"
            )
        if self.judge is None:
            raise ValueError("guidance_search: name the judge, a scorer that does not search")
        if by[self.judge] == by[searched]:
            raise ValueError(
                f"guidance_search.scorer: {searched!r} is of the network that judges,"
                f" {self.judge!r}; search by another scorer"
            )
        return self

    @model_validator(mode="after")
    def _diversity_can_be(self) -> EvaluateConfig:
        if any(metric.name == "diversity" for metric in self.metrics):
            if self.num_images < 2:
                raise ValueError(
                    "metrics: diversity needs num_images of 2 or more, to compare them"
                )
            if not self.features:
                raise ValueError("metrics: diversity needs features to compare images in")
        return self

    def switches(self, model: str) -> AdapterConfig:
        """Return the switches of a judged model's LoRA: none but for `policy` and those named."""
        return self.adapters.get(model, self.adapter if model == "policy" else AdapterConfig())

    def refuse_switches(self, judged: Collection[str]) -> None:
        """Refuse switches of a model that is not judged.

        Args:
            judged: Names of the judged models, the base apart.

        Raises:
            TastemakerError: A name is not among them.
        """
        named = [*self.adapters, *(["policy"] if self.adapter.words else [])]
        unknown = next((name for name in named if name not in judged), None)
        if unknown is not None:
            raise TastemakerError(
                f"evaluate.adapter{'' if unknown == 'policy' else 's'}: no model {unknown!r} is"
                f" judged; those whose LoRA can be switched are {', '.join(judged)}."
            )
