"""Typed sections of a run: one frozen pydantic model per command.

Registered names are checked, with their options, as soon as a section is built; nothing heavy is
imported before that.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import ConfigDict, Field, model_validator

from tastemaker.config.choices import Choice, Prompts, Scorer, Scorers
from tastemaker.core.values import Compile, Name, Names, Options, Precision

Device = Annotated[Literal["auto", "cpu", "cuda", "mps"], Names("device")]
Model = Annotated[str, Names("model")]
Column = Annotated[str, Names("column")]
Bound = Annotated[int, Field(ge=0, le=1000)]


class Section(Options):
    """Base of every section; defaults are checked too."""

    model_config = ConfigDict(validate_default=True, defer_build=True)


def section_class(annotation: Any) -> type[Section] | None:
    """Return the section class of a field, also of an optional one; None for a value."""
    if get_origin(annotation) is dict:
        return None
    for kind in (annotation, *get_args(annotation)):
        if isinstance(kind, type) and issubclass(kind, Section):
            return kind
    return None


def sections_of(section: Section, prefix: str = "") -> Iterator[tuple[str, Section]]:
    """Yield a section and all those inside of it, each with its path."""
    yield prefix.removesuffix("."), section
    for name in type(section).model_fields:
        value = getattr(section, name)
        if isinstance(value, Section):
            yield from sections_of(value, f"{prefix}{name}.")


def marked(section: Section) -> Iterator[tuple[str, Any, Any]]:
    """Yield the marks of the options of a section and of its choices, at every depth.

    Args:
        section: A section, for instance a whole run.

    Yields:
        Path, mark and value; for a choice itself, its table in place of the mark.
    """
    for prefix, inside in sections_of(section):
        for name, field in type(inside).model_fields.items():
            path, value = f"{prefix}.{name}".removeprefix("."), getattr(inside, name)
            yield from ((path, mark, value) for mark in field.metadata)
            for choice in value if isinstance(value, tuple) else (value,):
                if isinstance(choice, Choice):
                    yield path, choice.table, choice
                    yield from _marked_options(path, choice)


def columns(section: Section) -> Iterator[tuple[str, str]]:
    """Yield path and name of every column of scores that a section's options name."""
    for path, mark, value in marked(section):
        if mark == Names("column") and value is not None:
            yield from ((path, name) for name in ((value,) if isinstance(value, str) else value))


def _marked_options(path: str, choice: Choice) -> Iterator[tuple[str, Any, Any]]:
    for option, field in choice.table.schema(choice.name).model_fields.items():
        for mark in field.metadata:
            yield f"{path}.{option}", mark, choice.options[option]


class AdapterConfig(Section):
    """Scale, blocks and timesteps of a model's newest LoRA while images are drawn."""

    scale: float = Field(1.0, description="Factor on the LoRA; HG-DPO draws at 0.5.")
    blocks: tuple[Literal["down", "mid", "up"], ...] = Field(
        ("down", "mid", "up"), min_length=1, description="Blocks of the denoiser where it acts."
    )
    text_range: tuple[Bound, Bound] | None = Field(
        None,
        description="Timesteps [low, high) of Stable Diffusion's schedule where the text encoder's"
        " acts, by noise level for other models; null: all.",
    )
    lan: bool = Field(
        False,
        description="Normalise each step's latents to the channel means and deviations of a sample"
        " without the LoRA, against drifting colours; twice the time.",
    )
    negative: Annotated[str | None, Names("lora")] = Field(
        None,
        description="Folder of a LoRA of the same base, trained with train.swapped=true, that acts"
        " in guidance's unconditional branch alone; null: none.",
    )

    @model_validator(mode="after")
    def _range_is_not_empty(self) -> AdapterConfig:
        if self.text_range is not None and self.text_range[0] >= self.text_range[1]:
            raise ValueError(f"text_range {list(self.text_range)} is empty: low must be below high")
        return self

    @property
    def words(self) -> str:
        """The switches as a report writes them; empty where the LoRA acts whole.

        Example:
            >>> AdapterConfig(scale=0.5, blocks=("up",), text_range=(900, 1000)).words
            "its LoRA at 0.5, in the up blocks alone, the text encoder's at timesteps 900 to 999"
        """
        said = []
        if self.scale != 1:
            said.append(f"at {self.scale:g}")
        if len(set(self.blocks)) < 3:
            said.append(f"in the {' and '.join(self.blocks)} blocks alone")
        if self.text_range is not None:
            low, high = self.text_range
            said.append(f"the text encoder's at timesteps {low} to {high - 1}")
        if self.lan:
            said.append("with the base's channel statistics")
        own = [f"its LoRA {', '.join(said)}"] if said else []
        if self.negative is not None:
            own.append(f"{self.negative} in guidance's unconditional branch")
        return ", ".join(own)


class SamplingConfig(Section):
    """Options of every command that samples images."""

    seed: int = Field(0, ge=0, description="Seed that keys every image, with its prompt and draw.")
    batch_size: int = Field(16, ge=1, description="Images denoised together.")
    num_inference_steps: int = Field(50, ge=1, le=1000, description="Denoising steps.")
    guidance_scale: float | None = Field(
        None, ge=0, description="Guidance; 1 or less turns it off; default: the family's own."
    )
    negative_prompt: str = Field("", description="Prompt for the unconditional branch.")
    scheduler: str | None = Field(
        None, description="A diffusers scheduler class, e.g. DDIMScheduler; default: the model's."
    )
    adapter: AdapterConfig = Field(AdapterConfig(), description="Scale and reach of a LoRA.")
    height: int | None = Field(None, ge=8, description="Pixels; default: the model's.")
    width: int | None = Field(None, ge=8, description="Pixels; default: the model's.")
    device: Device = Field("auto", description="Device to compute on.")
    dtype: Precision = Field(
        "fp32", description="Precision of the model while sampling; auto: bf16 where it is fast."
    )
    torch_compile: Compile = False


class DrawConfig(SamplingConfig):
    """Options of the commands that make candidates."""

    model: Model = Field(description="Named model, hub id, pipeline folder or trained folder.")
    keep_latents: bool = Field(
        True, description="Store final latents, so that training need not encode the images."
    )
    shard_size: int = Field(256, ge=1, description="Images per parquet shard (the unit of resume).")


class CandidatesConfig(DrawConfig):
    """Candidates for the captions of real images."""

    num_candidates: int = Field(8, ge=2, description="Images per real image; HG-DPO draws 20.")


class GenerateConfig(DrawConfig):
    """Options of `generate`: prompts to candidates."""

    prompts: Prompts | None = Field(
        None, description="A file (txt, jsonl, csv, parquet) or a named set."
    )
    items: Annotated[str | None, Names("pool")] = Field(
        None, description="In place of prompts, a pool of real images: candidates for each caption."
    )
    num_candidates: int = Field(4, ge=1, description="Images per prompt (or per real image).")
    trajectories: bool = Field(
        False,
        description="Sample by DDIM with eta 1, all candidates of a prompt from the same starting"
        " noise, and keep the latents of every step, for train.noise=trajectory (D3PO).",
    )

    @model_validator(mode="after")
    def _trajectories_are_of_ddim(self) -> GenerateConfig:
        if self.trajectories and self.scheduler not in {None, "DDIMScheduler"}:
            raise ValueError(f"trajectories are DDIM's, not {self.scheduler}'s; leave it out")
        if self.trajectories and self.adapter.lan:
            raise ValueError("trajectories are the model's own; leave adapter.lan out")
        return self

    @model_validator(mode="after")
    def _has_prompts(self) -> GenerateConfig:
        if (self.prompts is None) == (self.items is None):
            raise ValueError("give one of `prompts` and `items` (a pool of real images)")
        return self


class ReconstructConfig(DrawConfig):
    """Options of `reconstruct`: real images, noised and denoised by a model."""

    timesteps: tuple[Annotated[int, Field(ge=0, le=999)], ...] = Field(
        (400, 500, 600, 700),
        min_length=1,
        description="One candidate per image and timestep of Stable Diffusion's schedule; for other"
        " models its noise level. 0: the image itself; 999: a sample from noise.",
    )

    @model_validator(mode="after")
    def _adapter_samples(self) -> ReconstructConfig:
        if self.adapter.lan:
            raise ValueError("adapter.lan is for samples from noise; leave it out")
        return self


class BlendConfig(Section):
    """Options of `blend`: real images mixed with their best candidates."""

    model: Model = Field(description="Model whose VAE mixes latents; pixels do without.")
    scorer: Column = Field(description="Column of scores that says which candidate is best.")
    alpha: float = Field(0.5, ge=0, le=1, description="Share of the candidate, against the real.")
    space: Literal["pixels", "latents"] = Field("latents", description="Space of the mixture.")
    shard_size: int = Field(256, ge=1, description="Images per parquet shard (the unit of resume).")
    device: Device = Field("auto", description="Device to compute on.")
    dtype: Precision = Field("fp32", description="Precision of the VAE.")


class LoraImportConfig(Section):
    """A LoRA file of another tool to a folder that is usable as `model` anywhere."""

    lora: str = Field(description="A .safetensors file in kohya's layout or diffusers' form.")
    model: Model = Field(
        description="The model that it belongs to: name, hub id or pipeline folder."
    )


class ExportConfig(Section):
    """A trained LoRA to other tools."""

    layout: Literal["kohya", "diffusers", "merged"] = Field(
        "kohya",
        description="One file for kohya's scripts, ComfyUI and A1111; one in diffusers' form, with"
        " all LoRAs that this one lies on; or a whole pipeline, with the LoRAs in its weights.",
    )
    name: Name | None = Field(None, description="Of kohya's file; default: the LoRA's folder's.")


class PublishConfig(Section):
    """Options of `publish`: a finished run as a folder for others; on request on the hub."""

    license: str | None = Field(None, description="The weights' licence, as the hub names it.")
    data: str | None = Field(None, description="The training data, in a sentence or a paragraph.")
    push_to_hub: str | None = Field(
        None, description="owner/name of a repository to upload to; nothing is uploaded without."
    )
    private: bool = Field(True, description="Make a new repository private.")


class ScoreConfig(Section):
    """Options of `score`: candidates to scores."""

    scorers: Scorers = Field(
        description="Registered scorers, and ensembles of columns before them in the list."
    )
    reuse: Annotated[tuple[str, ...], Names("pool")] = Field(
        (), description="Scored pools whose scores are taken over for equal images and prompts."
    )
    batch_size: int = Field(64, ge=1, description="Images scored together.")
    device: Device = Field("auto", description="Device to compute on.")
    dtype: Precision = Field(
        "fp32", description="Precision of the scorers; auto: bf16 where it is fast."
    )

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns of scores, in order."""
        return tuple(scorer.column for scorer in self.scorers)


class PanelConfig(Section):
    """Options of `doctor --scorer` on a pool."""

    scorer: Scorer = Field(description="A registered scorer, not an ensemble.")
    batch_size: int = Field(64, ge=1, description="Images scored together.")
    device: Device = Field("auto", description="Device to compute on.")
    dtype: Precision = Field(
        "fp32", description="Precision of the scorer; auto: bf16 where it is fast."
    )


class ReportConfig(Section):
    """Options of the page."""

    strips: int = Field(8, ge=1, le=64, description="Prompts shown as before/after strips.")
    pairs: int = Field(6, ge=1, le=64, description="Best and worst pairs shown.")
