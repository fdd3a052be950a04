"""The typed sections of a run: one frozen pydantic model a room.

Registered names are checked, with their options, as soon as a section is built; nothing heavy is
imported before that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    model_validator,
)

from tastemaker import registry
from tastemaker.errors import TastemakerError, nearest

Device = Literal["auto", "cpu", "cuda", "mps"]
Precision = Literal["fp32", "bf16", "fp16"]


class Choice(BaseModel):
    """A registered name with its options, written flat: `{name: dpo, beta: 5000}` or just `dpo`."""

    model_config = ConfigDict(frozen=True, extra="allow", protected_namespaces=())
    name: str

    @property
    def options(self) -> dict[str, Any]:
        """The options without the name."""
        return dict(self.model_extra or {})


class ScorerChoice(Choice):
    """A scorer; `label` names its column where one scorer is used twice."""

    label: str | None = None

    @property
    def column(self) -> str:
        """Name of the column of scores."""
        return self.label or self.name


class LossTerm(Choice):
    """A further loss with its weight in the sum."""

    weight: float = 1.0


def _choice(table: registry.Table, default: str | None = None, kind: type[Choice] = Choice) -> Any:
    """Return the annotated type of a field that names an entry of `table`."""

    def expand(value: Any) -> Any:
        if isinstance(value, str):
            return {"name": value}
        if isinstance(value, dict) and default is not None:
            return {"name": default, **value}
        return value

    def check(choice: Choice) -> Choice:
        try:
            return choice.model_copy(update=table.validate(choice.name, choice.options))
        except TastemakerError as error:
            raise ValueError(str(error)) from None

    return Annotated[kind, BeforeValidator(expand), AfterValidator(check)]


def _prompt_source(value: Any) -> Any:
    """Read a name as a prompt set where one is registered, otherwise as the path of a file."""
    given = {"name": value} if isinstance(value, str) else value
    if (
        isinstance(given, dict)
        and given.get("name") not in registry.PROMPTS
        and "path" not in given
    ):
        options = {key: option for key, option in given.items() if key != "name"}
        return {"name": "file", "path": given.get("name"), **options}
    return value


if TYPE_CHECKING:
    Prompts = Choice
    Comparisons = Choice
    Rule = Choice
    Loss = Choice
    ExtraLoss = LossTerm
    Credit = Choice
    Scorer = ScorerChoice
else:
    Prompts = Annotated[_choice(registry.PROMPTS), BeforeValidator(_prompt_source)]
    Comparisons = _choice(registry.COMPARISONS, default="pick_a_pic")
    Scorer = _choice(registry.SCORERS, kind=ScorerChoice)
    Rule = _choice(registry.RULES, default="best_worst")
    Loss = _choice(registry.LOSSES, default="dpo")
    ExtraLoss = _choice(registry.LOSSES, kind=LossTerm)
    Credit = _choice(registry.CREDITS, default="uniform")


class Section(BaseModel):
    """Base of every section: frozen, and an unknown key is an error."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", protected_namespaces=(), validate_default=True
    )


def _columns_differ(scorers: tuple[ScorerChoice, ...]) -> tuple[ScorerChoice, ...]:
    columns = [scorer.column for scorer in scorers]
    twice = sorted({column for column in columns if columns.count(column) > 1})
    if twice:
        raise ValueError(f"scorer {twice[0]!r} is named twice; give one a label: ...")
    return scorers


Scorers = Annotated[tuple[Scorer, ...], Field(min_length=1), AfterValidator(_columns_differ)]


class SamplingConfig(Section):
    """What any room that draws images has in common."""

    seed: int = Field(0, ge=0, description="Seed that keys every image, with its prompt and draw.")
    batch_size: int = Field(16, ge=1, description="Images denoised together.")
    num_inference_steps: int = Field(50, ge=1, le=1000, description="Denoising steps.")
    guidance_scale: float = Field(
        7.5, ge=0, description="Classifier-free guidance; 1 or less turns it off."
    )
    negative_prompt: str = Field("", description="Prompt for the unconditional branch.")
    scheduler: str | None = Field(
        None, description="A diffusers scheduler class, e.g. DDIMScheduler; default: the model's."
    )
    height: int | None = Field(None, ge=8, description="Pixels; default: the model's.")
    width: int | None = Field(None, ge=8, description="Pixels; default: the model's.")
    device: Device = Field("auto", description="Where to compute.")
    dtype: Precision = Field("fp32", description="Precision of the model while sampling.")


class GenerateConfig(SamplingConfig):
    """Room 1: prompts to candidates."""

    model: str = Field(description="Named model, hub id, pipeline folder or trained folder.")
    prompts: Prompts = Field(description="A file (txt, jsonl, csv, parquet) or a named set.")
    num_candidates: int = Field(4, ge=1, description="Images a prompt.")
    keep_latents: bool = Field(
        True, description="Store final latents, so that training need not encode the images."
    )
    shard_size: int = Field(256, ge=1, description="Images a parquet shard (the unit of resume).")


class ImportConfig(Section):
    """Room 1, other door: compared images with people's verdicts to a pool."""

    comparisons: Comparisons = Field(description="A file or folder, and its format.")
    size: int | None = Field(
        None, ge=8, description="Crop to a square and scale to so many pixels; null: as they are."
    )
    limit: int | None = Field(None, ge=1, description="Take the first so many comparisons.")
    shard_size: int = Field(256, ge=2, description="Images a parquet shard (the unit of resume).")


class ScoreConfig(Section):
    """Room 2: candidates to scores."""

    scorers: Scorers = Field(description="Registered scorers.")
    batch_size: int = Field(64, ge=1, description="Images scored together.")
    device: Device = Field("auto", description="Where to compute.")
    dtype: Precision = Field("fp32", description="Precision of the scorers.")


class PairConfig(Section):
    """Room 3: scores to pairs."""

    rule: Rule = Field(description="Pair rule with its options.")


class LoraConfig(Section):
    """Low-rank adapters on the denoiser."""

    rank: int = Field(8, ge=1, le=1024, description="Rank of the update.")
    alpha: float | None = Field(None, gt=0, description="Scale is alpha / rank; default: rank.")
    dropout: float = Field(0.0, ge=0, lt=1, description="Dropout on the adapters' input.")
    targets: tuple[str, ...] = Field(
        ("to_q", "to_k", "to_v", "to_out.0"), min_length=1, description="Layers that get one."
    )


class ValidationConfig(Section):
    """Images of fixed prompts and seeds, drawn while training goes on."""

    every: int = Field(0, ge=0, description="Optimizer steps between sheets; 0 turns them off.")
    prompts: tuple[str, ...] = Field((), description="Prompts to draw, one image each.")
    num_inference_steps: int = Field(20, ge=1, description="Denoising steps.")
    guidance_scale: float = Field(7.5, ge=0, description="Classifier-free guidance.")

    @model_validator(mode="after")
    def _has_prompts(self) -> ValidationConfig:
        if self.every and not self.prompts:
            raise ValueError("validation.every is set, but validation.prompts is empty; name some")
        return self


class GuardConfig(Section):
    """Against the known divergence: the margin grows while both errors grow."""

    chosen_penalty: float = Field(
        0.0, ge=0, description="Inside the sigmoid: this times the growth of the chosen error."
    )
    safeguard: float | None = Field(
        None, ge=0, lt=1, description="Scale the rejected gradient, with this slack; off: null."
    )
    max_gradient: float | None = Field(
        None, gt=0, description="Stop where the gradient norm before clipping exceeds this."
    )


class TrainConfig(Section):
    """Room 4: pairs to a trained model."""

    model: str = Field(description="Named model, hub id, pipeline folder or trained folder.")
    loss: Loss = Field(Choice(name="dpo"), description="Loss over the margin, with its options.")
    extra_losses: tuple[ExtraLoss, ...] = Field(
        (), description="Further losses, e.g. [{name: sft, weight: 0.1}] as an anchor."
    )
    credit: Credit = Field(
        Choice(name="uniform"), description="Which denoising steps count, and how much."
    )
    guards: GuardConfig = Field(GuardConfig(), description="Guards against divergence.")
    method: Literal["lora", "full"] = Field("lora", description="Adapters, or all U-Net weights.")
    lora: LoraConfig = Field(LoraConfig(), description="Options of the adapters.")
    reference: Literal["adapters_off", "frozen_copy"] = Field(
        "adapters_off",
        description="Where reference errors come from; full training needs frozen_copy.",
    )
    steps: int = Field(2000, ge=1, description="Optimizer steps.")
    batch_size: int = Field(4, ge=1, description="Pairs in one forward pass, a process.")
    gradient_accumulation: int = Field(1, ge=1, description="Forward passes an optimizer step.")
    learning_rate: float = Field(1e-5, gt=0, description="Peak learning rate of AdamW.")
    schedule: Literal["constant", "cosine", "linear"] = Field(
        "constant", description="Shape of the learning rate after the warm-up."
    )
    warmup_steps: int = Field(0, ge=0, description="Steps of linear warm-up.")
    weight_decay: float = Field(1e-2, ge=0, description="AdamW weight decay.")
    adam_betas: tuple[float, float] = Field((0.9, 0.999), description="AdamW moments.")
    adam_epsilon: float = Field(1e-8, gt=0, description="AdamW epsilon.")
    max_grad_norm: float = Field(1.0, gt=0, description="Gradient norm is clipped to this.")
    ema_decay: float | None = Field(None, gt=0, lt=1, description="EMA of the weights; off: null.")
    precision: Precision = Field("fp32", description="Autocast precision; fp16 scales the loss.")
    gradient_checkpointing: bool = Field(False, description="Trade time for memory.")
    sample_posterior: bool = Field(
        True,
        description="Sample the VAE posterior of encoded images, as in the paper; false: its mean.",
    )
    checkpoint_every: int = Field(500, ge=1, description="Optimizer steps between checkpoints.")
    validation: ValidationConfig = Field(ValidationConfig(), description="Sheets while training.")
    tracker: str | None = Field("tensorboard", description="Any accelerate tracker, or null.")
    seed: int = Field(0, ge=0, description="Seed of adapters, order, timesteps and noise.")
    device: Device = Field("auto", description="Where to compute.")

    @model_validator(mode="after")
    def _reference_fits(self) -> TrainConfig:
        if self.method == "full" and self.reference == "adapters_off":
            raise ValueError("method=full has no adapters to switch off; set reference=frozen_copy")
        return self


class EvaluateConfig(SamplingConfig):
    """Room 5: policy against base, same prompts and seeds."""

    base: str = Field(description="The model to beat: name, hub id or folder.")
    prompts: Prompts = Field(description="Held-out prompts: a file or a named set.")
    num_images: int = Field(1, ge=1, description="Images a prompt and model.")
    scorers: Scorers = Field(description="Registered scorers.")


class ReportConfig(Section):
    """The page."""

    strips: int = Field(8, ge=1, le=64, description="Prompts shown as before/after strips.")
    pairs: int = Field(6, ge=1, le=64, description="Best and worst pairs shown.")


def section_class(annotation: Any) -> type[Section] | None:
    """Return the section that a field holds, also where it may be left out; None for a value."""
    for kind in (annotation, *get_args(annotation)):
        if isinstance(kind, type) and issubclass(kind, Section):
            return kind
    return None


class RunConfig(Section):
    """A whole run: a recipe and its sections."""

    recipe: str = Field("diffusion_dpo", description="Registered recipe.")
    name: str = Field(description="Folder of the run below `output`.", min_length=1)
    output: str = Field("runs", description="Folder that holds all runs.")
    plugins: tuple[str, ...] = Field((), description="Python files with your own entries.")
    model: str = Field(description="Model for every section that does not name its own.")
    seed: int = Field(0, ge=0, description="Seed for every section that does not set its own.")
    device: Device = Field("auto", description="Device of sections that do not set their own.")
    data: ImportConfig | None = Field(None, description="Compared images, in place of generate.")
    generate: GenerateConfig | None = Field(None, description="The model's own candidates.")
    score: ScoreConfig | None = Field(
        None, description="Scorers of the candidates; imported ones have people's verdicts already."
    )
    pair: PairConfig
    train: TrainConfig
    evaluate: EvaluateConfig
    report: ReportConfig = ReportConfig()

    @model_validator(mode="before")
    @classmethod
    def _inherit(cls, data: Any) -> Any:
        """Hand model, seed and device down to the sections that do not set their own."""
        if not isinstance(data, dict):
            return data
        data = dict(data)
        down = {key: data[key] for key in ("model", "seed", "device") if key in data}
        for section, field in cls.model_fields.items():
            kind = section_class(field.annotation)
            if kind is None or (field.default is None and data.get(section) is None):
                continue
            given = data.get(section, {})
            if isinstance(given, dict):
                known = kind.model_fields
                renamed = {"base": down["model"]} if "base" in known and "model" in down else {}
                shared = {key: value for key, value in down.items() if key in known}
                data[section] = {**shared, **renamed, **given}
        return data

    @model_validator(mode="after")
    def _recipe_exists(self) -> RunConfig:
        if self.recipe not in registry.RECIPES:
            known = nearest(self.recipe, registry.RECIPES.names())
            raise ValueError(f"unknown recipe {self.recipe!r}. {known}")
        return self

    @model_validator(mode="after")
    def _has_candidates(self) -> RunConfig:
        if (self.data is None) == (self.generate is None):
            raise ValueError("candidates come from `generate` or from `data`: give one of the two")
        if self.generate is not None and self.score is None:
            raise ValueError("'score' is required: generated candidates have no scores")
        return self
