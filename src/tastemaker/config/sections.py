"""Typed sections of a run: one frozen pydantic model per command.

Registered names are checked, with their options, as soon as a section is built; nothing heavy is
imported before that.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import ConfigDict, Field, model_validator

from tastemaker.config.choices import Choice, Prompts, Scorer, Scorers
from tastemaker.core.values import Compile, Names, Options, Precision

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


class IPAdapterConfig(Section):
    """Weights of an IP-Adapter as diffusers' `load_ip_adapter` takes them, or their path alone."""

    model: str = Field(description="Folder, or hub id such as h94/IP-Adapter.")
    subfolder: str = Field("", description="Folder of the weights in it, e.g. models.")
    weight_name: str = Field(
        pattern=r"\.safetensors$", description="Their file, e.g. ip-adapter_sd15.safetensors."
    )
    image_encoder_folder: str = Field(
        "image_encoder",
        description="Folder of the image encoder: a name inside `subfolder`, or a path inside"
        " `model`.",
    )

    @model_validator(mode="before")
    @classmethod
    def _of_path(cls, given: Any) -> Any:
        """Read `FOLDER/FILE`, or `owner/name/subfolder/FILE` of the hub."""
        if not isinstance(given, str):
            return given
        path = Path(given).expanduser()
        if path.suffix != ".safetensors":
            raise ValueError(
                f"{given!r} is not a .safetensors file; give its path, or model, subfolder and"
                " weight_name"
            )
        if path.is_absolute() or path.parent.is_dir() or len(path.parts) < 3:
            return {"model": str(path.parent), "weight_name": path.name}
        owner, name, *folders, file = path.parts
        return {"model": f"{owner}/{name}", "subfolder": "/".join(folders), "weight_name": file}


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
    ip_adapter: IPAdapterConfig | None = Field(
        None, description="IP-Adapter, by which a picture prompts beside the text; null: none."
    )
    ip_adapter_image: Annotated[str | None, Names("picture")] = Field(
        None,
        description="Its picture; or a folder of one per prompt or real image, by order of names.",
    )
    ip_adapter_scale: float = Field(1.0, ge=0, description="Weight of the picture; 0: none.")
    height: int | None = Field(None, ge=8, description="Pixels; default: the model's.")
    width: int | None = Field(None, ge=8, description="Pixels; default: the model's.")
    device: Device = Field("auto", description="Device to compute on.")
    dtype: Precision = Field(
        "fp32", description="Precision of the model while sampling; auto: bf16 where it is fast."
    )
    torch_compile: Compile = False

    @model_validator(mode="after")
    def _picture_has_its_adapter(self) -> SamplingConfig:
        if (self.ip_adapter is None) != (self.ip_adapter_image is None):
            raise ValueError("give both ip_adapter and ip_adapter_image, or neither")
        if self.ip_adapter is None and self.ip_adapter_scale != 1:
            raise ValueError("ip_adapter_scale is of an ip_adapter; give one, or leave it out")
        return self


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
        if self.trajectories and self.ip_adapter is not None:
            raise ValueError("trajectories are trained on without a picture; leave ip_adapter out")
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
