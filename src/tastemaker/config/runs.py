"""A whole run: what every recipe's configuration shares, and the sections of each kind.

The annotation of a recipe's first parameter is its kind of run.
"""

from __future__ import annotations

from inspect import signature
from typing import Any, Literal, get_type_hints

from pydantic import Field, model_validator

from tastemaker.config.choices import Choice
from tastemaker.config.datasets import ImagesConfig, ImportConfig, PairConfig
from tastemaker.config.evaluation import EvaluateConfig
from tastemaker.config.inheritance import handed_down, merged_deep, with_known
from tastemaker.config.personalization import PersonalizeConfig, with_class_images
from tastemaker.config.sections import (
    BlendConfig,
    CandidatesConfig,
    Column,
    Device,
    DrawConfig,
    GenerateConfig,
    ReconstructConfig,
    ReportConfig,
    ScoreConfig,
    Section,
    columns,
)
from tastemaker.config.training import RewardTrainConfig, TrainConfig
from tastemaker.core import registry
from tastemaker.core.errors import nearest
from tastemaker.core.values import Name

STAGES = ("easy", "normal", "hard")


class RunConfig(Section):
    """Options of every run: a recipe, a name, and what its sections inherit."""

    recipe: str = Field("diffusion_dpo", description="Registered recipe.")
    name: Name = Field(description="Folder of the run below `output`.")
    output: str = Field("runs", description="Folder of all runs.")
    plugins: tuple[str, ...] = Field((), description="Python files with your own entries.")
    model: str = Field(description="Model for every section that does not name its own.")
    seed: int = Field(0, ge=0, description="Seed for every section that does not set its own.")
    device: Device = Field("auto", description="Device of sections that do not set their own.")
    evaluate: EvaluateConfig
    report: ReportConfig = ReportConfig()

    @property
    def judged(self) -> tuple[str, ...]:
        """Names of the models that the recipe judges against the base; the last one is final."""
        return ("policy",)

    @model_validator(mode="after")
    def _switches_fit(self) -> RunConfig:
        self.evaluate.refuse_switches(self.judged)
        return self

    @model_validator(mode="before")
    @classmethod
    def _inherit(cls, data: Any) -> Any:
        """Hand model, seed and device down to the sections that do not set their own."""
        if not isinstance(data, dict):
            return data
        down = {key: data[key] for key in ("model", "seed", "device") if key in data}
        if "model" in down:
            down["base"] = down["model"]
        return data | handed_down(cls, data, down)

    @property
    def score_columns(self) -> tuple[str, ...] | None:
        """Columns of scores that the run makes before it pairs; None where it makes none."""
        score = getattr(self, "score", None)
        return score.columns if score is not None else None

    @model_validator(mode="after")
    def _columns_are_made(self) -> RunConfig:
        made = self.score_columns
        for path, name in columns(self):
            if made is not None and name not in made:
                raise ValueError(f"{path}: no scorer gives {name!r}. {nearest(name, made)}")
        return self


class PreferenceRun(RunConfig):
    """One round: candidates, scores, pairs, a training, an evaluation."""

    data: ImportConfig | None = Field(None, description="Compared images, in place of generate.")
    generate: GenerateConfig | None = Field(None, description="The model's own candidates.")
    score: ScoreConfig | None = Field(
        None, description="Scorers of the candidates; imported ones have people's verdicts already."
    )
    pair: PairConfig
    train: TrainConfig

    @property
    def score_columns(self) -> tuple[str, ...] | None:
        """People's verdicts, where comparisons are imported, and those of `score`."""
        if not (self.data or self.score):
            return None
        verdicts = self.data.scorers if self.data else ()
        return verdicts + (self.score.columns if self.score else ())

    @model_validator(mode="after")
    def _has_candidates(self) -> PreferenceRun:
        if (self.data is None) == (self.generate is None):
            raise ValueError("candidates come from `generate` or from `data`: give one of the two")
        if self.generate is not None and self.score is None:
            raise ValueError("'score' is required: generated candidates have no scores")
        both = set(self.score.columns if self.score else ()) & set(
            self.data.scorers if self.data else ()
        )
        if both:
            raise ValueError(f"score: {both.pop()!r} is people's verdicts; give another label")
        return self


class CurriculumRun(PreferenceRun):
    """A run whose training takes easy pairs first."""

    @model_validator(mode="after")
    def _has_curriculum(self) -> CurriculumRun:
        if self.train.curriculum is None:
            raise ValueError("this recipe needs train.curriculum={chunks: 6, every: 500}")
        return self


class StageConfig(Section):
    """One stage of a curriculum on real images: what is chosen over what, and its training."""

    chosen: Literal["candidates", "reconstruction", "blend", "real"] = Field(
        description="Images that win: the model's own, real ones, or what lies in between."
    )
    rejected: Literal["candidates", "easy", "normal"] = Field(
        description="Images that lose: the worst candidate, or what won in an earlier stage."
    )
    reconstruct: ReconstructConfig | None = Field(None, description="With chosen=reconstruction.")
    blend: BlendConfig | None = Field(None, description="With chosen=blend.")
    keep_if: float | None = Field(
        None, description="Keep a pair if its score rises by at least this; 0 is the paper's rule."
    )
    reference: Literal["start", "base"] = Field(
        "start", description="The model at the stage's start, or the base."
    )
    train: TrainConfig


class TextStageConfig(Section):
    """The text encoder's own LoRA, trained apart on the pairs of one stage."""

    pairs: Literal["easy", "normal", "hard"] = Field("easy", description="Whose pairs.")
    train: TrainConfig


class RealRun(RunConfig):
    """Real photographs and the model's candidates for their captions, in up to three stages."""

    real: ImagesConfig
    held_out: ImagesConfig | None = Field(
        None, description="Other real images: the distance to them is reported."
    )
    candidates: CandidatesConfig
    score: ScoreConfig
    scorer: Column = Field(description="The column of scores that decides in all stages.")
    train: dict[str, Any] = Field({}, description="What the stages' `train` have in common.")
    warm_up: StageConfig | None = Field(None, description="SFT on what it chooses; off: null.")
    easy: StageConfig | None = Field(None, description="First stage; null skips it.")
    normal: StageConfig | None = Field(None, description="Second stage; null skips it.")
    hard: StageConfig | None = Field(None, description="Third stage; null skips it.")
    text_encoder: TextStageConfig | None = Field(None, description="Off: null.")

    @model_validator(mode="before")
    @classmethod
    def _share(cls, data: Any) -> Any:
        """Hand down `train` and how candidates are sampled; what a stage says itself wins."""
        if not isinstance(data, dict):
            return data
        data = dict(data)
        common, candidates = (data.get(name, {}) for name in ("train", "candidates"))
        for name in (*STAGES, "warm_up", "text_encoder"):
            stage = data.get(name)
            if not isinstance(stage, dict) or not isinstance(common, dict):
                continue
            stage = {**stage, "train": merged_deep(common, stage.get("train"))}
            if stage.get("chosen") == "reconstruction" and isinstance(candidates, dict):
                known = DrawConfig.model_fields
                sampling = {key: value for key, value in candidates.items() if key in known}
                stage["reconstruct"] = sampling | (stage.get("reconstruct") or {})
            if stage.get("chosen") == "blend":
                stage["blend"] = {"scorer": data.get("scorer")} | (stage.get("blend") or {})
            data[name] = stage
        return data

    @property
    def stages(self) -> dict[str, StageConfig]:
        """The stages that are not skipped, in order."""
        given = {name: getattr(self, name) for name in STAGES}
        return {name: stage for name, stage in given.items() if stage is not None}

    @property
    def judged(self) -> tuple[str, ...]:
        if self.recipe == "hg_dpo_mixed":
            return ("policy",)
        names = list(self.stages)
        return (*(names if self.text_encoder is not None else names[:-1]), "policy")

    @model_validator(mode="after")
    def _stages_fit(self) -> RealRun:
        if not self.stages:
            raise ValueError("all stages are skipped; give one of easy, normal, hard")
        before = ["candidates"]
        for name, stage in self.stages.items():
            if stage.rejected not in before:
                raise ValueError(
                    f"{name}.rejected: stage {stage.rejected!r} does not come before {name};"
                    f" take one of {', '.join(before)}"
                )
            before.append(name)
        if self.text_encoder is not None and self.text_encoder.pairs not in self.stages:
            raise ValueError(f"text_encoder.pairs: stage {self.text_encoder.pairs!r} is skipped")
        methods = {stage.train.method for stage in self.stages.values()}
        if self.text_encoder is not None and methods != {"lora"}:
            raise ValueError("text_encoder is merged with the stages' LoRA: train them by lora")
        return self


class PersonalRun(RunConfig):
    """Photographs of a subject to a personalised model, then rounds on its own candidates."""

    personalize: PersonalizeConfig
    class_images: GenerateConfig | None = Field(
        None, description="Prior preservation: images of the class; {}: 100 of them; off: null."
    )
    prior_weight: float = Field(1.0, gt=0, description="Weight of their loss.")
    rounds: int = Field(
        2, ge=1, description="Rounds, each on its own part of the prompts and the model before."
    )
    generate: GenerateConfig = Field(description="Candidates; with several rounds of `templates`.")
    score: ScoreConfig
    pair: PairConfig
    train: TrainConfig

    @model_validator(mode="before")
    @classmethod
    def _name_the_subject(cls, data: Any) -> Any:
        """Tell prompts and scorers what `personalize` calls the subject, where they do not."""
        if not isinstance(data, dict) or not isinstance(data.get("personalize"), dict):
            return data
        given = data["personalize"]
        class_name = str(given.get("class_name", "")).strip()
        identifier = given.get("identifier", PersonalizeConfig.model_fields["identifier"].default)
        subject = f"{identifier} {class_name}"
        known = {
            "templates": {"subject": subject},
            "image_similarity": {"images": given.get("photographs")},
            "text_similarity": {"subject": subject, "class_name": class_name},
        }
        data = with_class_images(data, class_name)
        for name in ("generate", "score", "evaluate"):
            section = data.get(name)
            if not isinstance(section, dict):
                continue
            section = dict(section)
            if "prompts" in section:
                section["prompts"] = with_known(section["prompts"], known)
            if isinstance(section.get("scorers"), list | tuple):
                section["scorers"] = [with_known(each, known) for each in section["scorers"]]
            data[name] = section
        return data

    @model_validator(mode="after")
    def _rounds_have_parts(self) -> PersonalRun:
        prompts = self.generate.prompts
        if prompts is None:
            raise ValueError("generate.prompts is missing: {name: templates, set: live}")
        if self.rounds > 1 and prompts.name != "templates":
            raise ValueError(
                f"generate.prompts: {prompts.name!r} cannot be split among {self.rounds} rounds;"
                " take {name: templates, set: FILE}, or rounds=1"
            )
        if self.rounds > 1 and prompts.options.get("of", 1) > 1:
            raise ValueError("generate.prompts: the rounds set part and of; leave them out")
        return self

    @property
    def judged(self) -> tuple[str, ...]:
        return (*(f"round_{number}" for number in range(1, self.rounds)), "policy")

    def round_prompts(self, number: int) -> Choice:
        """The prompts of a round, counted from 1: its part where there are several."""
        assert self.generate.prompts is not None
        if self.rounds == 1:
            return self.generate.prompts
        return self.generate.prompts.model_copy(update={"part": number, "of": self.rounds})


class RewardRun(RunConfig):
    """A scorer's gradient in place of pairs: one training, judged."""

    train: RewardTrainConfig


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
