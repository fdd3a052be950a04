"""What a backbone is: the only view of a diffusion model that rooms, losses and schemes have."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from tastemaker.noise import NoiseSchedule

Conditioning = dict[str, torch.Tensor]
"""Prompt embeddings under the names of the pipeline's arguments, first dimension = prompts."""


def select(conditioning: Conditioning, rows: torch.Tensor | Sequence[int]) -> Conditioning:
    """Pick rows of a conditioning.

    Args:
        conditioning: Embeddings, first dimension = prompts.
        rows: Indices, repetition allowed.

    Returns:
        The rows, in the order given.
    """
    index = torch.as_tensor(rows, dtype=torch.long)
    return {name: value[index.to(value.device)] for name, value in conditioning.items()}


def stack(conditionings: Sequence[Conditioning]) -> Conditioning:
    """Join conditionings along their first dimension."""
    first = conditionings[0]
    return {name: torch.cat([item[name] for item in conditionings]) for name in first}


class Backbone(ABC):
    """A text-to-image diffusion model seen from outside its family.

    Attributes:
        name: What the model was loaded from.
        pipeline: The diffusers pipeline.
        abar: alphas_cumprod of the training schedule, float64, shape [T].
    """

    name: str
    pipeline: Any
    abar: torch.Tensor

    @property
    @abstractmethod
    def denoiser(self) -> torch.nn.Module:
        """The network that is trained: a U-Net or a transformer."""

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """Where the denoiser is."""

    @property
    def num_timesteps(self) -> int:
        """T: length of the training schedule."""
        return len(self.abar)

    @abstractmethod
    def encode_prompts(self, prompts: Sequence[str]) -> Conditioning:
        """Encode prompts, one at a time, so that an embedding does not depend on its neighbours.

        Args:
            prompts: Texts; longer ones are cut at the tokenizer's limit.

        Returns:
            Embeddings, first dimension = prompts, on the model's device.
        """

    @abstractmethod
    def encode_images(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Encode images to the VAE's posterior, in the units that the denoiser sees.

        Args:
            pixels: Shape [images, 3, height, width], in [-1, 1].

        Returns:
            Mean and standard deviation of the latents, each [images, channels, h, w].
        """

    @abstractmethod
    def decode_latents(self, latents: torch.Tensor) -> list[Image.Image]:
        """Decode final latents to pictures."""

    @abstractmethod
    def sample(
        self,
        conditioning: Conditioning,
        negative: Conditioning,
        seeds: Sequence[int],
        *,
        num_inference_steps: int,
        guidance_scale: float,
        height: int | None = None,
        width: int | None = None,
    ) -> torch.Tensor:
        """Draw final latents, each image from its own seed, with the pipeline's own sampler.

        Args:
            conditioning: Embeddings, one row an image.
            negative: Embeddings of the negative prompt, one row an image.
            seeds: One an image.
            num_inference_steps: Denoising steps.
            guidance_scale: Classifier-free guidance; 1 or less turns it off.
            height: Pixels; None for the model's own.
            width: Pixels; None for the model's own.

        Returns:
            Latents, [images, channels, h, w].
        """

    @property
    @abstractmethod
    def noise_schedule(self) -> NoiseSchedule:
        """`alpha`, `sigma` and the kind of prediction, for credit schemes."""

    @abstractmethod
    def add_noise(
        self, latents: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor
    ) -> torch.Tensor:
        """Return `x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) noise`."""

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
        """Return what the prediction should be: noise, v or x_0, as the model was trained."""

    @abstractmethod
    def set_scheduler(self, name: str) -> None:
        """Replace the sampler by another diffusers scheduler with the same training schedule.

        Args:
            name: A class of `diffusers.schedulers`, such as "DDIMScheduler".

        Raises:
            TastemakerError: There is no such scheduler.
        """

    @abstractmethod
    def prepare_training(self) -> None:
        """Choose the implementation of attention that trains fastest where the model is."""

    @abstractmethod
    def release_encoders(self) -> None:
        """Drop VAE and text encoders from memory, once everything is cached."""

    @abstractmethod
    def fuse_adapters(self) -> None:
        """Add loaded LoRAs to the weights, so that a new one can be trained on top."""

    @abstractmethod
    def save_adapter(self, folder: Path, adapter: str) -> None:
        """Save a LoRA as `pytorch_lora_weights.safetensors`, readable by `load_lora_weights`."""

    @abstractmethod
    def save_pipeline(self, folder: Path) -> None:
        """Save the whole pipeline, readable by `from_pretrained`."""
