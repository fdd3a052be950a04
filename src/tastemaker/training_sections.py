"""The typed sections of trainings: on pairs, on a scorer's gradient, on photographs."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from tastemaker.choices import Choice, Credit, ExtraLoss, Loss, PixelScorer, Prompts
from tastemaker.errors import TastemakerError
from tastemaker.sections import Device, Precision, Section
from tastemaker.templates import as_template, filled

TOKEN = "<[a-z0-9_-]+>"
"""A new word: in any other form, tokenizers would change it or find it inside other words."""

FULL_LEARNING_RATE = 2e-6
"""Of all weights in personalisation; adapters take far more."""

# Of fields whose default depends on what is trained, and how: the default stands in each section.
Rank = Annotated[int, Field(ge=1, le=1024, description="Rank of the update.")]
Targets = Annotated[tuple[str, ...], Field(min_length=1, description="Layers that get one.")]
Steps = Annotated[int, Field(ge=1, description="Optimizer steps.")]
Accumulation = Annotated[int, Field(ge=1, description="Batches an optimizer step.")]
LearningRate = Annotated[float, Field(gt=0, description="Peak learning rate of AdamW.")]
WeightDecay = Annotated[float, Field(ge=0, description="AdamW weight decay.")]
MaxGradNorm = Annotated[float, Field(gt=0, description="Gradient norm is clipped to this.")]
CheckpointEvery = Annotated[int, Field(ge=1, description="Optimizer steps between checkpoints.")]


class LoraConfig(Section):
    """Low-rank adapters on the denoiser."""

    rank: Rank = 8
    alpha: float | None = Field(None, gt=0, description="Scale is alpha / rank; default: rank.")
    dropout: float = Field(0.0, ge=0, lt=1, description="Dropout on the adapters' input.")
    targets: Targets = ("to_q", "to_k", "to_v", "to_out.0")


class TextLoraConfig(LoraConfig):
    """Low-rank adapters on the text encoders."""

    rank: Rank = 64
    targets: Targets = ("q_proj", "k_proj", "v_proj", "out_proj")
    learning_rate: float | None = Field(
        None, gt=0, description="Peak learning rate; default: the denoiser's."
    )


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
    every: int = Field(500, ge=1, description="Optimizer steps until the next part is added.")


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


class OptimisationConfig(Section):
    """What every training has in common, whatever it learns from."""

    model: str = Field(description="Named model, hub id, pipeline folder or trained folder.")
    lora: LoraConfig = Field(LoraConfig(), description="Options of the denoiser's adapters.")
    steps: Steps = 2000
    batch_size: int = Field(
        4, ge=1, description="Pairs, or images that are drawn, in one forward pass, a process."
    )
    gradient_accumulation: Accumulation = 1
    learning_rate: LearningRate = 1e-5
    schedule: Literal["constant", "cosine", "linear"] = Field(
        "constant", description="Shape of the learning rate after the warm-up."
    )
    warmup_steps: int = Field(0, ge=0, description="Steps of linear warm-up.")
    weight_decay: WeightDecay = 1e-2
    adam_betas: tuple[float, float] = Field((0.9, 0.999), description="AdamW moments.")
    adam_epsilon: float = Field(1e-8, gt=0, description="AdamW epsilon.")
    max_grad_norm: MaxGradNorm = 1.0
    precision: Precision = Field(
        "fp32", description="Of frozen weights and forward passes; fp16 scales the loss."
    )
    gradient_checkpointing: bool = Field(False, description="Trade time for memory.")
    checkpoint_every: CheckpointEvery = 500
    seed: int = Field(0, ge=0, description="Seed of everything that is drawn at random.")
    device: Device = Field("auto", description="Where to compute.")


class TrainConfig(OptimisationConfig):
    """Room 4: pairs to a trained model."""

    loss: Loss = Field(Choice(name="dpo"), description="Loss over the margin, with its options.")
    extra_losses: tuple[ExtraLoss, ...] = Field(
        (), description="Further losses, e.g. [{name: sft, weight: 0.1}] as an anchor."
    )
    credit: Credit = Field(
        Choice(name="uniform"), description="Which denoising steps count, and how much."
    )
    guards: GuardConfig = Field(GuardConfig(), description="Guards against divergence.")
    method: Literal["lora", "full", "frozen"] = Field(
        "lora", description="The denoiser's adapters train, or all its weights, or nothing of it."
    )
    text_lora: TextLoraConfig | None = Field(
        None, description="Adapters on the text encoders, trained along; method=frozen: alone."
    )
    start: str | None = Field(
        None, description="Folder of a trained LoRA of the same base, to be carried on."
    )
    reference: Literal["adapters_off", "frozen_copy", "frozen_adapter"] = Field(
        "adapters_off",
        description="Where reference errors come from: the base below the adapters; a copy of the"
        " denoiser (full training needs it); a frozen copy of the adapter in `start`.",
    )
    statistics: StatisticsConfig | None = Field(
        None, description="Statistics matching of the chosen image; off: null."
    )
    curriculum: CurriculumConfig | None = Field(
        None, description="Pairs in order of their gap; off: null."
    )
    ema_decay: float | None = Field(None, gt=0, lt=1, description="EMA of the weights; off: null.")
    sample_posterior: bool = Field(
        True,
        description="Sample the VAE posterior of encoded images, as in the paper; false: its mean.",
    )
    validation: ValidationConfig = Field(ValidationConfig(), description="Sheets while training.")
    tracker: str | None = Field("tensorboard", description="Any accelerate tracker, or null.")

    @model_validator(mode="after")
    def _reference_fits(self) -> TrainConfig:
        if self.method == "full" and self.reference == "adapters_off":
            raise ValueError("method=full has no adapters to switch off; set reference=frozen_copy")
        if self.reference == "frozen_adapter" and (self.start is None or self.method != "lora"):
            raise ValueError("reference=frozen_adapter needs method=lora and a LoRA in `start`")
        if self.start is not None and self.method != "lora":
            raise ValueError(f"`start` is a LoRA to carry on; method={self.method} has none")
        if self.method == "frozen" and self.text_lora is None:
            raise ValueError("method=frozen leaves nothing to train; give text_lora")
        if self.method == "full" and self.text_lora is not None:
            raise ValueError("text_lora goes with method=lora or frozen: all weights have no LoRA")
        return self


class RewardTrainConfig(OptimisationConfig):
    """Room 4, other door: a scorer's gradient, through the sampler, to a trained model."""

    prompts: Prompts = Field(description="Prompts to draw images of: a file or a named set.")
    scorer: PixelScorer = Field(description="A differentiable scorer, whose mean is raised.")
    reward_scale: float = Field(1.0, gt=0, description="Factor on the scores in the loss.")
    num_inference_steps: int = Field(50, ge=1, le=1000, description="Denoising steps (DDIM).")
    guidance_scale: float = Field(
        5.0, ge=0, description="Classifier-free guidance; 1 or less turns it off."
    )
    keep: int = Field(
        5, ge=1, description="Last denoising steps that carry gradient, at most; the paper: all."
    )
    random_keep: bool = Field(
        True, description="Draw their number from 1..keep at each optimizer step; false: keep."
    )
    steps: Steps = 400
    gradient_accumulation: Accumulation = 32
    learning_rate: LearningRate = 1e-3
    weight_decay: WeightDecay = 0.1
    max_grad_norm: MaxGradNorm = 5.0
    checkpoint_every: CheckpointEvery = 50
    gradient_checkpointing: bool = Field(
        True, description="Memory for one kept step whatever `keep` is, for more time."
    )

    @model_validator(mode="after")
    def _keep_fits(self) -> RewardTrainConfig:
        if self.keep > self.num_inference_steps:
            raise ValueError(
                f"keep={self.keep} exceeds num_inference_steps={self.num_inference_steps}"
            )
        return self


class TokenConfig(Section):
    """Textual inversion: the identifier is a new word of the text encoders."""

    vectors: int = Field(1, ge=1, le=32, description="Embeddings that the word becomes.")
    initializer: str | None = Field(
        None, pattern=r"\S", description="Known words to start from; default: the class's name."
    )
    learning_rate: float = Field(5e-4, gt=0, description="Peak learning rate of the embeddings.")


class PriorConfig(Section):
    """Prior preservation: images of the class that the model drew before it was personalised."""

    pool: str = Field(description="Folder of class images, from `generate`; turns it on.")
    weight: float = Field(1.0, gt=0, description="Weight of their loss.")


class PersonalizeConfig(OptimisationConfig):
    """Photographs of one subject to a model that knows it."""

    photographs: str = Field(
        description="Folder of photographs of the subject, 3 to 6 are usual; or a named subject."
    )
    minimum: int = Field(2, ge=1, description="Fewest photographs, copies not counted.")
    identifier: str = Field(
        "sks", pattern=r"^\S+$", description="Rare word that comes to mean the subject."
    )
    class_name: str = Field(pattern=r"\S", description="What the subject is one of, such as dog.")
    prompt: str = Field(
        "a photo of a {}",
        description="Of the photographs, with a slot for `identifier class_name`.",
    )
    size: int | None = Field(
        None,
        ge=8,
        multiple_of=8,
        description="Crop to a square of so many pixels; default: the model's own.",
    )
    prior: PriorConfig | None = Field(None, description="Prior preservation; off: null.")
    method: Literal["lora", "full", "frozen"] = Field(
        "lora", description="The denoiser's adapters train, or all its weights, or nothing of it."
    )
    text_lora: TextLoraConfig | None = Field(
        None, description="Adapters on the text encoders, trained along; off: null."
    )
    train_text_encoder: bool = Field(
        False, description="With method=full, train all weights of the text encoders, too."
    )
    token: TokenConfig | None = Field(
        None, description="Make the identifier, written <toy>, a word of its own; off: null."
    )
    steps: Steps = 500
    batch_size: int = Field(
        1,
        ge=1,
        description="Photographs, and as many class images, in one forward pass, a process.",
    )
    learning_rate: float = Field(
        1e-4,
        gt=0,
        description=f"Peak learning rate of AdamW; method=full: {FULL_LEARNING_RATE:g}.",
    )
    checkpoint_every: CheckpointEvery = 100

    @property
    def subject(self) -> str:
        """The phrase that names the subject in prompts: identifier and class, "sks dog"."""
        return f"{self.identifier} {self.class_name.strip()}"

    @property
    def instance_prompt(self) -> str:
        """The prompt of the photographs."""
        return filled(self.prompt, self.subject)

    @model_validator(mode="before")
    @classmethod
    def _rate_of_all_weights(cls, data: Any) -> Any:
        """All weights are trained at a rate of their own, unless one is given."""
        if isinstance(data, dict) and data.get("method") == "full":
            return {"learning_rate": FULL_LEARNING_RATE, **data}
        return data

    @model_validator(mode="after")
    def _subject_fits(self) -> PersonalizeConfig:
        try:
            as_template(self.prompt, "prompt")
            filled(self.prompt, self.subject)
        except TastemakerError as error:
            raise ValueError(str(error)) from None
        if self.token is not None and not re.fullmatch(TOKEN, self.identifier):
            raise ValueError(
                f"token: the identifier {self.identifier!r} becomes a word of its own; write it in"
                " small letters and angle brackets: identifier='<toy>'"
            )
        return self

    @model_validator(mode="after")
    def _method_fits(self) -> PersonalizeConfig:
        adapts = self.text_lora is not None or self.token is not None
        if self.method == "frozen" and not adapts:
            raise ValueError("method=frozen leaves nothing to train; give text_lora or token")
        if self.method == "full" and adapts:
            raise ValueError(
                "text_lora and token go with method=lora or frozen; with method=full set"
                " train_text_encoder=true"
            )
        if self.method != "full" and self.train_text_encoder:
            raise ValueError("train_text_encoder goes with method=full; give text_lora instead")
        return self
