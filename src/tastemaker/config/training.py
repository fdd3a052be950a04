"""The typed sections of trainings: on pairs, on a scorer's gradient, on photographs."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from tastemaker.config.alternatives import Noise, Reference
from tastemaker.config.choices import Choice, CreditChoice, ExtraLoss, Loss, PixelScorer, Prompts
from tastemaker.config.preference import CurriculumConfig, GuardConfig, StatisticsConfig
from tastemaker.config.sections import Device, Model, Section
from tastemaker.core.hardware import number_of_processes
from tastemaker.core.values import MACHINE, Compile, Names, Precision

Rank = Annotated[int, Field(ge=1, le=1024, description="Rank of the update.")]
Target = Annotated[str, Field(pattern=r"\S")]
Targets = Annotated[tuple[Target, ...], Field(min_length=1, description="Modules to adapt.")]
Steps = Annotated[int, Field(ge=1, description="Optimizer steps.")]
Accumulation = Annotated[int, Field(ge=1, description="Micro-batches per optimizer step.")]
Beta = Annotated[float, Field(ge=0, lt=1)]
LearningRate = Annotated[float, Field(gt=0, description="Peak learning rate of AdamW.")]
WeightDecay = Annotated[float, Field(ge=0, description="AdamW weight decay.")]
MaxGradNorm = Annotated[float, Field(gt=0, description="Gradient norm is clipped to this.")]
Cache = Annotated[
    Literal["disk", "none"],
    Field(
        description="Keep encodings of images and prompts on disk, for all trainings on the same"
        " data; none: in memory."
    ),
]
SaveSteps = Annotated[int, Field(ge=1, description="Optimizer steps between checkpoints.")]


class LoraConfig(Section):
    """Low-rank adapters on the denoiser."""

    r: Rank = 8
    alpha: float | None = Field(None, gt=0, description="Scale is alpha / rank; default: rank.")
    dropout: float = Field(0.0, ge=0, lt=1, description="Dropout on the adapters' input.")
    target_modules: Targets = ("to_q", "to_k", "to_v", "to_out.0")


class TextLoraConfig(LoraConfig):
    """Low-rank adapters on the text encoders."""

    r: Rank = 64
    target_modules: Targets = ("q_proj", "k_proj", "v_proj", "out_proj")
    learning_rate: float | None = Field(
        None, gt=0, description="Peak learning rate; default: the denoiser's."
    )


class ValidationConfig(Section):
    """Images of fixed prompts and seeds, drawn while training goes on."""

    steps: int = Field(0, ge=0, description="Optimizer steps between sheets; 0 turns them off.")
    prompts: tuple[str, ...] = Field((), description="Prompts to draw, one image each.")
    num_inference_steps: int = Field(20, ge=1, le=1000, description="Denoising steps.")
    guidance_scale: float | None = Field(
        None, ge=0, description="Guidance; default: the family's own."
    )

    @model_validator(mode="after")
    def _has_prompts(self) -> ValidationConfig:
        if self.steps and not self.prompts:
            raise ValueError("validation.steps is set, but validation.prompts is empty; name some")
        return self


class OptimisationConfig(Section):
    """Options of every training: model, adapters, optimizer, steps, checkpoints."""

    model: Model = Field(description="Named model, hub id, pipeline folder or trained folder.")
    lora: LoraConfig = Field(LoraConfig(), description="Options of the denoiser's adapters.")
    max_steps: Steps = 2000
    batch_size: int = Field(
        4, ge=1, description="Pairs, or sampled images, per forward pass and process."
    )
    gradient_accumulation_steps: Accumulation = 1
    learning_rate: LearningRate = 1e-5
    lr_scheduler: Literal["constant", "cosine", "linear"] = Field(
        "constant", description="Shape of the learning rate after the warm-up."
    )
    warmup_steps: int = Field(0, ge=0, description="Steps of linear warm-up.")
    weight_decay: WeightDecay = 1e-2
    adam_beta1: Beta = Field(0.9, description="AdamW: decay of the first moment.")
    adam_beta2: Beta = Field(0.999, description="AdamW: decay of the second moment.")
    adam_epsilon: float = Field(1e-8, gt=0, description="AdamW epsilon.")
    max_grad_norm: MaxGradNorm = 1.0
    device: Device = Field("auto", description="Where to compute.")
    dtype: Precision = Field(
        "fp32",
        description="Precision of forward passes and frozen weights; fp16 uses a gradient scaler;"
        " auto: bf16 where it is fast.",
    )
    torch_compile: Compile = False
    gradient_checkpointing: bool = Field(False, description="Trade time for memory.")
    save_steps: SaveSteps = 500
    logging_steps: int = Field(
        10,
        ge=1,
        description="Optimizer steps between readings of the metrics, for which the CPU waits for"
        " the device; `metrics.jsonl` has every step.",
    )
    seed: int = Field(0, ge=0, description="Seed of everything that is drawn at random.")

    def examples_per_step(self, processes: int) -> int:
        """Return how many examples, pairs or images, an optimizer step takes in all processes."""
        return self.batch_size * self.gradient_accumulation_steps * processes

    @property
    def rising(self) -> str | None:
        """Key that may rise in a finished run, whose training then goes on; None if none may.

        With a constant schedule the first steps are the same however many follow.
        """
        return "max_steps" if self.lr_scheduler == "constant" else None

    def identity(self) -> dict[str, Any]:
        """The configuration as far as results depend on it, for the key of a training.

        How many examples an optimizer step takes enters, and not how they are cut into batches and
        spread over processes: a training that began on one process goes on on two.

        Returns:
            JSON-like.
        """
        around = {
            *MACHINE,
            "cache",
            "report_to",
            "logging_steps",
            "batch_size",
            "gradient_accumulation_steps",
        }
        examples = self.examples_per_step(number_of_processes())
        return {**self.model_dump(mode="json", exclude=around), "examples_per_step": examples}


class TrainConfig(OptimisationConfig):
    """Options of `train`: pairs to a trained model."""

    loss: Loss = Field(Choice(name="dpo"), description="Loss over the margin, with its options.")
    extra_losses: tuple[ExtraLoss, ...] = Field(
        (), description="Further losses, e.g. [{name: sft, weight: 0.1}] as an anchor."
    )
    credit: CreditChoice = Field(
        Choice(name="uniform"), description="Which denoising steps count, and how much."
    )
    timesteps: Literal["family", "uniform"] = Field(
        "family",
        description="How often timesteps are drawn, times what `credit` says: as the family was"
        " trained (logit-normal with its shift for flows, uniform for the others), or uniformly.",
    )
    guards: GuardConfig = Field(GuardConfig(), description="Guards against divergence.")
    verdicts: Annotated[str | None, Names("column")] = Field(
        None,
        description="Train on single images of a scored pool, in place of pairs: column that tells"
        " the desirable ones (loss kto).",
    )
    verdict_threshold: float = Field(0.5, description="Least score of a desirable image.")
    method: Literal["lora", "full", "frozen"] = Field(
        "lora", description="The denoiser's adapters train, or all its weights, or nothing of it."
    )
    text_lora: TextLoraConfig | None = Field(
        None, description="Adapters on the text encoders, trained along; method=frozen: alone."
    )
    start: Annotated[str | None, Names("lora")] = Field(
        None, description="Folder of a trained LoRA of the same base, to be carried on."
    )
    reference: Reference = Field(
        "adapters_off",
        description="Where reference errors come from: the base below the adapters; a copy of what"
        " training starts from (full training needs it); a frozen copy of the adapter in `start`;"
        " synced: follows the policy.",
    )
    ref_model_mixup_alpha: float = Field(
        0.6, gt=0, le=1, description="reference=synced: the policy's share; 1 - decay of an EMA."
    )
    ref_model_sync_steps: int = Field(
        512, ge=1, description="reference=synced: optimizer steps between updates; 1: an EMA."
    )
    noise: Noise = Field(
        "drawn",
        description="Noise on the images of a pair: drawn anew, one for both; each image's own,"
        " that it was sampled from (pools of `generate`), or that DDIM inversion finds (any image);"
        " or that of a step of its trajectory (generate.trajectories), whose Gaussian log-ratios"
        " the loss sees (D3PO).",
    )
    inversion_steps: int = Field(
        20, ge=1, le=1000, description="noise=inverted: network calls per image, made once."
    )
    swapped: bool = Field(
        False,
        description="Exchange the sides of the pairs: a negative-preference LoRA, for"
        " `adapter.negative` in sampling.",
    )
    reference_draws: int | None = Field(
        None,
        ge=1,
        description="Fixed draws of timestep and noise per pair; the reference's errors on them are"
        " computed once and kept, for later trainings too. null: fresh draws, a live reference.",
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
    cache: Cache = "disk"
    proportion_empty_prompts: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Share of pairs trained with the empty prompt, both images and the reference"
        " alike; 0.2 in the reference implementation of Diffusion-DPO (proportion_empty_prompts).",
    )
    validation: ValidationConfig = Field(ValidationConfig(), description="Sheets while training.")
    report_to: Annotated[str | None, Names("tracker")] = Field(
        "tensorboard", description="Any accelerate tracker, or null."
    )

    @model_validator(mode="after")
    def _reference_fits(self) -> TrainConfig:
        if self.method == "full" and self.reference == "adapters_off":
            raise ValueError("method=full has no adapters to switch off; set reference=frozen_copy")
        if self.reference == "frozen_adapter" and (self.start is None or self.method != "lora"):
            raise ValueError("reference=frozen_adapter needs method=lora and a LoRA in `start`")
        if self.start is not None and self.method != "lora":
            raise ValueError(f"`start` is a LoRA to carry on; method={self.method} has none")
        if self.reference_draws and self.statistics and self.statistics.target == "reference":
            raise ValueError(
                "statistics.target=reference needs the reference's whole prediction, of which"
                " reference_draws keeps the errors alone; set statistics.target=data, or leave"
                " reference_draws out"
            )
        if self.reference_draws and self.reference == "synced":
            raise ValueError(
                "reference=synced changes while training, and reference_draws computes its errors"
                " once; leave reference_draws out"
            )
        other = (self.text_lora, self.statistics, self.proportion_empty_prompts or None)
        if self.noise == "trajectory" and (other != (None,) * 3 or self.credit.name != "uniform"):
            raise ValueError(
                "noise=trajectory goes with credit=uniform, and without text_lora, statistics and"
                " proportion_empty_prompts"
            )
        if self.verdicts is not None:
            if not {self.loss.name, *(each.name for each in self.extra_losses)} <= {"kto", "sft"}:
                raise ValueError(
                    "verdicts are on single images, which compare nothing; set loss=kto"
                )
            if self.reference_draws or self.curriculum or self.swapped or self.noise != "drawn":
                raise ValueError(
                    "verdicts take neither reference_draws, curriculum nor swapped, and noise=drawn"
                )
        if self.method == "frozen" and self.text_lora is None:
            raise ValueError("method=frozen leaves nothing to train; give text_lora")
        if self.method == "full" and self.text_lora is not None:
            raise ValueError("text_lora goes with method=lora or frozen: all weights have no LoRA")
        return self


class RewardTrainConfig(OptimisationConfig):
    """Options of reward back-propagation (AlignProp): a scorer's gradient to a trained model."""

    prompts: Prompts = Field(description="Prompts to draw images of: a file or a named set.")
    scorer: PixelScorer = Field(description="A differentiable scorer, whose mean is raised.")
    reward_scale: float = Field(
        0.01,
        gt=0,
        description="Factor on the scores in the loss: how soon max_grad_norm clips; AdamW's step"
        " does not depend on it otherwise.",
    )
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
    max_steps: Steps = 400
    gradient_accumulation_steps: Accumulation = 32
    learning_rate: LearningRate = 1e-3
    weight_decay: WeightDecay = 0.1
    max_grad_norm: MaxGradNorm = 5.0
    save_steps: SaveSteps = 50
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
