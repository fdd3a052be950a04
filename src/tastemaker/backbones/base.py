"""Backbone: a diffusion model seen from outside its family, for sampling, losses and credit."""

from __future__ import annotations

import inspect
from abc import abstractmethod
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch

from tastemaker.backbones.autoencoder import Autoencoder
from tastemaker.backbones.conditioning import Conditioning, stack
from tastemaker.backbones.family import Family
from tastemaker.backbones.gradient_sampling import Step, guided_step
from tastemaker.backbones.lora.switches import OUTSIDE, adapters_off
from tastemaker.backbones.precision import keep_in_fp32
from tastemaker.backbones.sampling_batch import SamplingBatch, sampled
from tastemaker.backbones.tokens import PROMPTS_AT_ONCE, TEXT, limit_tokenizers, token_ids
from tastemaker.core.batching import batched
from tastemaker.core.errors import TastemakerError
from tastemaker.core.noise_schedule import NoiseSchedule
from tastemaker.storage.files import written_folder


class Backbone(Family):
    """A text-to-image pipeline; a family adds prompt embeddings, denoiser call and sampler.

    Args:
        name: Name, hub id or folder that the model was loaded from.
        pipeline: The loaded pipeline, on its device.

    Attributes:
        noise_schedule: `alpha`, `sigma` and the kind of prediction, float64, shape [T].
        vae: The autoencoder, in the units that the denoiser sees.
        attached: Folder of the LoRA on top of the weights; None without one.
        text_range: Timesteps [low, high) at which a text encoder's LoRA acts; None for all.
        lan: Sample with latents normalised to those without the LoRA.
        staged_on: Device to which parts are read when they are needed, where the model began
            without weights; None where all are there.
    """

    last: ClassVar[str]
    """The denoiser's name of its last layer."""

    takes_negative: ClassVar[bool] = True
    """False for families that ignore a negative prompt."""

    takes_text_range: ClassVar[bool] = True
    """False for families that keep one text embedding for all timesteps."""

    learns_words: ClassVar[bool] = True
    """False for families without textual inversion."""

    noise_schedule: NoiseSchedule

    def __init__(self, name: str, pipeline: Any) -> None:
        self.name = name
        self.pipeline = pipeline
        self.text_range: tuple[int, int] | None = None
        self.lan = False
        self.attached: Path | None = None
        self.staged_on: torch.device | None = None
        self.vae = Autoencoder(name, pipeline.vae)
        limit_tokenizers(pipeline)
        pipeline.set_progress_bar_config(disable=True)

    @property
    def denoiser(self) -> Any:
        """The network that is trained: a U-Net or a transformer."""
        return getattr(self.pipeline, self.part)

    @property
    def networks(self) -> dict[str, torch.nn.Module]:
        """All networks of the pipeline by name, in its order."""
        parts = self.pipeline.components
        return {name: each for name, each in parts.items() if isinstance(each, torch.nn.Module)}

    @property
    def device(self) -> torch.device:
        """Device of the denoiser, or that to which it will be read."""
        # diffusers' own properties walk through all modules: 7 ms of a batch on a small network.
        return self.staged_on or next(self.denoiser.parameters()).device

    @property
    def text_encoders(self) -> list[Any]:
        """Text encoders that a LoRA may train on."""
        return [getattr(self.pipeline, name) for name in self.text_parts]

    @property
    def adaptable_parts(self) -> tuple[str, ...]:
        """The pipeline's names of the networks that a LoRA may adapt."""
        return (self.part, *self.text_parts)

    @property
    def num_timesteps(self) -> int:
        """T, the length of the training schedule."""
        return len(self.noise_schedule)

    @property
    def sides(self) -> tuple[int, int]:
        """Height and width in pixels of the images that the model was made for."""
        own = getattr(self.denoiser.config, "sample_size", None)
        given = own or getattr(self.pipeline, "default_sample_size", None)
        if not given:
            raise TastemakerError(
                f"{self.name} names no size of its own (sample_size); give height and width."
            )
        high, wide = given if isinstance(given, (list, tuple)) else (given, given)
        factor = self.pipeline.vae_scale_factor
        return int(high * factor), int(wide * factor)

    @property
    def grain(self) -> int:
        """Pixels that height and width are multiples of."""
        return int(self.pipeline.vae_scale_factor)

    @property
    def channels(self) -> int:
        """Channels of the latents."""
        return int(self.denoiser.config.in_channels)

    def latent_shape(self, height: int | None, width: int | None) -> tuple[int, int, int]:
        """Compute the shape of one image's latents: channels, height and width.

        Args:
            height: Pixels; None for the model's own.
            width: Pixels; None for the model's own.

        Raises:
            TastemakerError: The family cannot sample that size.
        """
        if height is None or width is None:
            height, width = height or self.sides[0], width or self.sides[1]
        for side in (height, width):
            if side % self.grain:
                below = max(side // self.grain, 1) * self.grain
                raise TastemakerError(
                    f"{self.name} draws sizes that are multiples of {self.grain} pixels, not"
                    f" {side}; take {below} or {below + self.grain}."
                )
        factor = self.pipeline.vae_scale_factor
        return self.channels, height // factor, width // factor

    @torch.no_grad()
    def encode_prompts(self, prompts: Sequence[str]) -> Conditioning:
        """Encode prompts, `PROMPTS_AT_ONCE` together.

        Args:
            prompts: Texts; longer ones are cut at the tokenizer's limit.

        Returns:
            Embeddings, first dimension = prompts, on the model's device.
        """

        def encoded() -> Conditioning:
            return stack([self._encode(list(part)) for part in batched(prompts, PROMPTS_AT_ONCE)])

        embeddings = encoded()
        if self.text_range is not None or self.lan:
            with adapters_off(self.text_encoders):
                outside = encoded()
            embeddings |= {f"{OUTSIDE}{name}": value for name, value in outside.items()}
        return embeddings

    @abstractmethod
    def _encode(self, prompts: list[str]) -> Conditioning:
        """Encode prompts by the pipeline's own code, under its arguments' names."""

    def encode_negative(self, prompt: str) -> Conditioning:
        """Encode a negative prompt as the pipeline does, also an empty one; one row."""
        return self.encode_prompts([prompt])

    def image_conditioning(self, row: dict[str, Any], latents: torch.Tensor) -> Conditioning:
        """Return a training image's conditioning beside its prompt, such as SDXL's sizes.

        Args:
            row: Row of a pool, perhaps with `original_size` and `crops_coords_top_left`.
            latents: The image's latents, [channels, h, w].

        Returns:
            One row; empty for most families.
        """
        return {}

    def tokenize(self, prompts: Sequence[str]) -> Conditioning:
        """Turn prompts into the tokens that `embed` takes, first dimension = prompts."""
        return {
            part.replace(TEXT, "input_ids"): token_ids(self.pipeline, part, prompts)
            for part in self.text_parts
        }

    @abstractmethod
    def embed(
        self, text_encoders: Sequence[torch.nn.Module], tokens: Conditioning, cached: Conditioning
    ) -> Conditioning:
        """Run the text encoders, with a graph where they train.

        Args:
            text_encoders: This backbone's own, or as `accelerate` wrapped them.
            tokens: From `tokenize`.
            cached: From `encode_prompts`, for encoders that no LoRA trains on (T5).

        Returns:
            As `encode_prompts`, up to rounding.
        """

    def guidance_scale(self, given: float | None) -> float:
        """Return the given guidance scale, or for None the default of the family's pipeline."""
        if given is not None:
            return given
        parameters = inspect.signature(type(self.pipeline).__call__).parameters
        return float(parameters["guidance_scale"].default)

    @abstractmethod
    def grid(self, num_inference_steps: int, shape: Sequence[int]) -> Any:
        """Return the pipeline's scheduler, with the timesteps that it takes for such latents."""

    @abstractmethod
    def deterministic_grid(self, num_inference_steps: int, shape: Sequence[int]) -> Any:
        """Return a scheduler whose step depends on prediction, timestep and latents alone."""

    @torch.no_grad()
    def sample(
        self, batch: SamplingBatch, *, height: int | None = None, width: int | None = None
    ) -> torch.Tensor:
        """Sample final latents, each image from its own seed, with the pipeline's own sampler.

        Args:
            batch: The images.
            height: Pixels; None for the model's own.
            width: Pixels; None for the model's own.

        Returns:
            Latents, [images, channels, h, w].
        """
        shape = self.latent_shape(height, width)
        first = int(self.grid(batch.num_inference_steps, shape).timesteps[0])
        height, width = (side * self.pipeline.vae_scale_factor for side in shape[1:])
        return sampled(self, self.pipeline, batch, first, height=height, width=width)

    def step(self, denoiser: torch.nn.Module, scheduler: Any, batch: SamplingBatch) -> Step:
        """Return the guided step of a scheduler of `deterministic_grid`."""
        return guided_step(partial(self.predict, denoiser), scheduler, batch)

    @abstractmethod
    def resample(self, latents: torch.Tensor, timestep: int, batch: SamplingBatch) -> torch.Tensor:
        """Noise latents to a timestep and denoise them from there with the pipeline's own sampler.

        The sampler starts at its timestep nearest to the given one. At 0 the latents come back as
        they are; at T - 1 nothing is left of them: a sample with these seeds.

        Args:
            latents: Final latents, one row per image.
            timestep: In [0, T).
            batch: The images; of their steps those up to `timestep` are taken.

        Returns:
            Latents, shaped as given.
        """

    def timestep_density(self, height: int, width: int) -> torch.Tensor | None:
        """Return the density of training timesteps, unnormalised, shape [T]; None for uniform.

        Args:
            height: Of the latents.
            width: Of the latents.
        """
        return None

    @abstractmethod
    def add_noise(
        self, latents: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor
    ) -> torch.Tensor:
        """Return `x_t = alpha_t x_0 + sigma_t noise`."""

    @abstractmethod
    def predict(
        self,
        denoiser: torch.nn.Module,
        noisy_latents: torch.Tensor,
        timesteps: torch.Tensor,
        conditioning: Conditioning,
    ) -> torch.Tensor:
        """Run a denoiser of this family: this backbone's own, a wrapped one or a copy."""

    @abstractmethod
    def target(
        self, latents: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor
    ) -> torch.Tensor:
        """Return the target of the prediction: noise, v or x_0, as the model was trained."""

    def prepare_training(self, dtype: str) -> None:
        """Keep the last layer in fp32."""
        if dtype != "fp32":
            keep_in_fp32(getattr(self.denoiser, self.last))

    def save_pipeline(self, folder: Path) -> None:
        """Save the whole pipeline, readable by `from_pretrained`."""
        with written_folder(folder) as temporary:
            self.pipeline.save_pretrained(temporary)
