"""Batch of images to sample: prompts, seeds, steps and guidance."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from diffusers.utils.torch_utils import randn_tensor

from tastemaker.backbones.conditioning import IMAGE_EMBEDS, Conditioning, select
from tastemaker.backbones.latent_normalization import LatentNormalization
from tastemaker.backbones.lora.switches import OUTSIDE, adapters_off, text_range_arguments
from tastemaker.core.errors import TastemakerError

if TYPE_CHECKING:
    from tastemaker.backbones.base import Backbone


def generators_of(seeds: Sequence[int]) -> list[torch.Generator]:
    """Make one generator per seed, on the CPU so that every device gets the same noise."""
    return [torch.Generator("cpu").manual_seed(seed) for seed in seeds]


def starting_noise(
    seeds: Sequence[int], shape: Sequence[int], dtype: torch.dtype = torch.float32
) -> torch.Tensor:
    """Draw the noise that sampling starts from, as pipelines do.

    Args:
        seeds: One per image.
        shape: Of an image's latents.
        dtype: Precision in which it is drawn.

    Returns:
        Float32, [images, *shape], on the CPU.
    """
    size = (len(seeds), *shape)
    return randn_tensor(size, generator=generators_of(seeds), dtype=dtype).float()


@dataclass(frozen=True, eq=False)
class SamplingBatch:
    """Images to sample in one batch, each from the noise of its own seed.

    Args:
        conditioning: Prompt embeddings, one row per image.
        negative: Embeddings of the negative prompt, one row per image.
        seeds: Seeds of the initial noise, one per image.
        num_inference_steps: Denoising steps from pure noise to image.
        guidance_scale: Classifier-free guidance; 1 or less turns it off.
    """

    conditioning: Conditioning
    negative: Conditioning
    seeds: Sequence[int]
    _: KW_ONLY
    num_inference_steps: int
    guidance_scale: float

    @property
    def guided(self) -> bool:
        """True if classifier-free guidance is on, which doubles the cost."""
        return self.guidance_scale > 1

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the embeddings, and of the latents that the network sees."""
        return next(iter(self.conditioning.values())).dtype

    def generators(self) -> list[torch.Generator]:
        """Make one generator per image, on the CPU so that every device gets the same noise."""
        return generators_of(self.seeds)

    def noise(self, shape: Sequence[int], device: torch.device) -> torch.Tensor:
        """Draw the images' initial noise as pipelines do, in float32."""
        return starting_noise(self.seeds, shape, self.dtype).to(device)

    def select(self, rows: Sequence[int]) -> SamplingBatch:
        """Pick some of the images, in the order given."""
        return replace(
            self,
            conditioning=select(self.conditioning, rows),
            negative=select(self.negative, rows),
            seeds=[self.seeds[row] for row in rows],
        )


def pipeline_arguments(backbone: Backbone, batch: SamplingBatch, first: int) -> dict[str, Any]:
    """Build the arguments of a pipeline's call that denoises a batch to latents.

    Args:
        backbone: The model.
        batch: The images.
        first: The first timestep that will be denoised.

    Returns:
        Keyword arguments; with a range of timesteps of a text encoder's LoRA, embeddings change
        between two steps.
    """
    embeddings = dict(batch.conditioning)
    if backbone.takes_negative:
        embeddings |= {f"negative_{key}": value for key, value in batch.negative.items()}
    embeddings = {key: each for key, each in embeddings.items() if IMAGE_EMBEDS not in key}
    inside, outside = ranged(embeddings)
    prompts: dict[str, Any] = inside
    if backbone.text_range is not None and outside is not inside:
        prompts = text_range_arguments(
            backbone.pipeline, inside, outside, backbone.text_range, first, guided=batch.guided
        )
    return {
        **prompts,
        "generator": batch.generators(),
        "num_inference_steps": batch.num_inference_steps,
        "guidance_scale": batch.guidance_scale,
        "output_type": "latent",
    }


def ranged(conditioning: Conditioning) -> tuple[Conditioning, Conditioning]:
    """Return the embeddings inside a text encoder's range of timesteps, and those outside of it.

    Args:
        conditioning: Embeddings of prompts.

    Returns:
        Both under the same names; twice the first where the text encoder's LoRA acts everywhere.
    """
    inside = {key: value for key, value in conditioning.items() if OUTSIDE not in key}
    outside = {
        key.replace(OUTSIDE, ""): value for key, value in conditioning.items() if OUTSIDE in key
    }
    return inside, outside or inside


def sampled(
    backbone: Backbone, pipeline: Any, batch: SamplingBatch, first: int, **options: Any
) -> torch.Tensor:
    """Sample latents by a pipeline's call; with `backbone.lan` normalised to those of the base.

    Args:
        backbone: The model.
        pipeline: Its own, or another on the same networks.
        batch: The images.
        first: The first timestep that will be denoised.
        **options: Further arguments of the call.

    Returns:
        The pipeline's latents.

    Raises:
        TastemakerError: They are not finite.
    """
    arguments = pipeline_arguments(backbone, batch, first) | options
    if backbone.lan:
        lan = LatentNormalization()
        base = replace(
            batch, conditioning=ranged(batch.conditioning)[1], negative=ranged(batch.negative)[1]
        )
        with adapters_off([backbone.denoiser]), pictured(backbone.denoiser, batch):
            recording = pipeline_arguments(backbone, base, first) | options
            pipeline(**recording, callback_on_step_end=lan.record)
        arguments |= lan.after(**arguments)
    with pictured(backbone.denoiser, batch):
        return require_finite(backbone.name, pipeline(**arguments).images)


@contextlib.contextmanager
def pictured(denoiser: torch.nn.Module, batch: SamplingBatch) -> Iterator[None]:
    """Give a denoiser each image's own picture, where diffusers' pipelines take one for a batch.

    Args:
        denoiser: The network that a pipeline calls inside.
        batch: The images; without image embeddings nothing is given.
    """
    if IMAGE_EMBEDS not in batch.conditioning:
        yield
        return
    halves = [batch.negative, batch.conditioning] if batch.guided else [batch.conditioning]
    embeds = torch.cat([half[IMAGE_EMBEDS] for half in halves])

    def add(module: Any, given: Any, named: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        added = named.get("added_cond_kwargs") or {}
        return given, {**named, "added_cond_kwargs": {**added, IMAGE_EMBEDS: [embeds]}}

    hook = denoiser.register_forward_pre_hook(add, with_kwargs=True)
    try:
        yield
    finally:
        hook.remove()


def require_finite(name: str, latents: torch.Tensor) -> torch.Tensor:
    """Return a model's sampled latents, or raise `TastemakerError` where they are not finite."""
    if not torch.isfinite(latents).all():
        raise TastemakerError(
            f"{name} sampled latents that are not finite. Lower guidance_scale, or take"
            " dtype=bf16 or fp32 in place of fp16; after a training, lower its learning rate."
        )
    return latents
