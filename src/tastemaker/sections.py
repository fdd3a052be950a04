"""The typed sections of a run: one frozen pydantic model a room.

Registered names are checked, with their options, as soon as a section is built; nothing heavy is
imported before that.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

from tastemaker.choices import (
    Choice,
    Comparisons,
    Credit,
    ExtraLoss,
    Loss,
    Prompts,
    Rule,
    Scorers,
)

Device = Literal["auto", "cpu", "cuda", "mps"]
Precision = Literal["fp32", "bf16", "fp16"]


class Section(BaseModel):
    """Base of every section: frozen, and an unknown key is an error."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", protected_namespaces=(), validate_default=True
    )


def section_class(annotation: Any) -> type[Section] | None:
    """Return the section that a field holds, also where it may be left out; None for a value."""
    for kind in (annotation, *get_args(annotation)):
        if isinstance(kind, type) and issubclass(kind, Section):
            return kind
    return None


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
