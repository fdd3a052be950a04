"""Backbone: the interface to a diffusion model for sampling, losses and credit schemes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from tastemaker.backbones.conditioning import Conditioning
from tastemaker.backbones.drawing import Drawing
from tastemaker.config.sections import AdapterConfig
from tastemaker.core.noise_schedule import NoiseSchedule
from tastemaker.storage.candidates import latents_of
from tastemaker.storage.images import decode, to_pixels


class Backbone(ABC):
    """A text-to-image diffusion model seen from outside its family.

    Attributes:
        name: What the model was loaded from.
        pipeline: The diffusers pipeline.
        noise_schedule: `alpha`, `sigma` and the kind of prediction, float64, shape [T].
    """

    name: str
    pipeline: Any
    noise_schedule: NoiseSchedule

    @property
    @abstractmethod
    def denoiser(self) -> torch.nn.Module:
        """The network that is trained: a U-Net or a transformer."""

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """Device of the denoiser."""

    @property
    @abstractmethod
    def size(self) -> int:
        """Side in pixels of the square that the model was made to draw."""

    @abstractmethod
    def guidance_scale(self, given: float | None) -> float:
        """Return the guidance to draw with.

        Args:
            given: By an option; None for the family's own, the default of its diffusers pipeline.

        Returns:
            The scale; of a family with a guidance embedding, that embedding's input.
        """

    @abstractmethod
    def latent_shape(self, height: int | None, width: int | None) -> tuple[int, int, int]:
        """Shape of one image's latents.

        Args:
            height: Pixels; None for the model's own.
            width: Pixels; None for the model's own.

        Returns:
            Channels, height and width.

        Raises:
            TastemakerError: The family cannot draw that size.
        """

    takes_negative: bool = True
    """Whether a negative prompt changes what the family draws."""

    @abstractmethod
    def check_steps(self, num_inference_steps: int, shape: Sequence[int]) -> None:
        """Refuse a number of denoising steps that the sampler cannot take.

        Args:
            num_inference_steps: Steps.
            shape: Of the latents, which shifts a flow's noise levels.

        Raises:
            TastemakerError: There are fewer timesteps, or the sampler refuses.
        """

    @property
    def num_timesteps(self) -> int:
        """T: length of the training schedule."""
        return len(self.noise_schedule)

    @abstractmethod
    def encode_prompts(self, prompts: Sequence[str]) -> Conditioning:
        """Encode prompts, one at a time, so that an embedding does not depend on its neighbours.

        Args:
            prompts: Texts; longer ones are cut at the tokenizer's limit.

        Returns:
            Embeddings, first dimension = prompts, on the model's device.
        """

    def encode_negative(self, prompt: str) -> Conditioning:
        """Encode the negative prompt as the family's own pipeline does, also where it is empty.

        Args:
            prompt: The negative prompt.

        Returns:
            As `encode_prompts`, one row.
        """
        return self.encode_prompts([prompt])

    def image_conditioning(self, row: dict[str, Any], latents: torch.Tensor) -> Conditioning:
        """What the denoiser is told of a training image beside its prompt, e.g. SDXL's sizes.

        Args:
            row: Of a pool, perhaps with `original_size` and `crop_corner`.
            latents: The image's, [channels, h, w].

        Returns:
            One row; empty in most families.
        """
        return {}

    @property
    @abstractmethod
    def text_encoders(self) -> list[torch.nn.Module]:
        """The networks that make embeddings and on each of which a LoRA may train."""

    @abstractmethod
    def tokenize(self, prompts: Sequence[str]) -> Conditioning:
        """Turn prompts into what `embed` reads, first dimension = prompts."""

    @abstractmethod
    def embed(
        self,
        text_encoders: Sequence[torch.nn.Module],
        tokens: Conditioning,
        cached: Conditioning,
    ) -> Conditioning:
        """Run text encoders of this family, with a graph where they train.

        Args:
            text_encoders: This backbone's own, or as `accelerate` wrapped them.
            tokens: From `tokenize`.
            cached: From `encode_prompts`, for what encoders add that no LoRA trains on (T5).

        Returns:
            As `encode_prompts`, up to rounding.
        """

    @abstractmethod
    def add_token(self, name: str, *, initializer: str, vectors: int) -> list[torch.nn.Parameter]:
        """Give the text encoders a new word, whose embedding trains.

        Args:
            name: The word, as it stands in prompts: `<toy>`, small letters in angle brackets.
            initializer: Known words that its embedding starts from.
            vectors: Embeddings that the word becomes, 1 or a few.

        Returns:
            What trains: the embeddings in each text encoder, shape [vectors, dimension].

        Raises:
            TastemakerError: The word is known already.

        References:
            Gal et al., textual inversion, arXiv 2208.01618.
        """

    @abstractmethod
    def save_token(self, folder: Path, name: str) -> None:
        """Save a word of `add_token` in the form that `load_textual_inversion` reads."""

    @abstractmethod
    def load_token(self, folder: Path) -> None:
        """Add the word that `save_token` wrote; it is then part of the model and does not train."""

    @abstractmethod
    def encode_images(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Encode images to the VAE's posterior, in the units that the denoiser sees.

        Args:
            pixels: Shape [images, 3, height, width], in [-1, 1].

        Returns:
            Mean and standard deviation of the latents, each [images, channels, h, w].
        """

    def encode_row(self, row: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return a candidate's latents: its own where it keeps them, or through the VAE.

        Latents of a model with another VAE are other numbers of the same shape: they are left
        aside, and the picture is encoded.

        Args:
            row: Of a pool, with `image` and perhaps `latents` of the row's `model`.

        Returns:
            Mean and standard deviation, float32 on the CPU, [channels, h, w]; latents that a model
            drew have none, 0.

        Raises:
            TastemakerError: The picture is corrupt, or of a size that the family cannot take.
        """
        own = latents_of(row)
        if own is not None and self.shares_latents(row["model"]):
            return own, torch.zeros_like(own)
        pixels = to_pixels([decode(row["image"]["bytes"], row["candidate_id"])])
        self.latent_shape(*pixels.shape[-2:])
        mean, std = self.encode_images(pixels)
        return mean[0].float().cpu(), std[0].float().cpu()

    @abstractmethod
    def shares_latents(self, model: str) -> bool:
        """Say whether another model's latents are this one's: whether their VAEs are of one kind.

        Args:
            model: Name, hub id or folder; one that is no longer there is taken for such a model.
        """

    @abstractmethod
    def decode_latents(self, latents: torch.Tensor) -> list[Image.Image]:
        """Decode final latents to pictures."""

    @abstractmethod
    def sample(
        self, drawing: Drawing, *, height: int | None = None, width: int | None = None
    ) -> torch.Tensor:
        """Draw final latents, each image from its own seed, with the pipeline's own sampler.

        Args:
            drawing: The images.
            height: Pixels; None for the model's own.
            width: Pixels; None for the model's own.

        Returns:
            Latents, [images, channels, h, w].
        """

    @abstractmethod
    def sample_with_gradient(
        self,
        denoiser: torch.nn.Module,
        drawing: Drawing,
        *,
        keep: int,
        height: int | None = None,
        width: int | None = None,
        checkpointing: bool = True,
    ) -> torch.Tensor:
        """Draw final latents by a deterministic sampler, with a graph through its last steps.

        The same latents as `sample` with that sampler (DDIM for models of noise, v or x_0).

        Args:
            denoiser: A denoiser of this family: this backbone's own, a wrapped one or a copy.
            drawing: The images.
            keep: Last steps that carry a graph; the steps before count as constants.
            height: Pixels; None for the model's own.
            width: Pixels; None for the model's own.
            checkpointing: Run the kept steps again in the backward pass instead of storing what
                their networks computed.

        Returns:
            Latents, float32, [images, channels, h, w].

        References:
            Prabhudesai et al. (AlignProp), arXiv 2310.03739: truncation and checkpointing.
        """

    @abstractmethod
    def decode_pixels(self, latents: torch.Tensor) -> torch.Tensor:
        """Decode final latents to pixels, with gradient.

        Clipped to [0, 1] as in `decode_latents`, so that the gradient is that of the picture which
        is judged: where a value lies beyond black or white it is zero, and nothing pulls it back.

        Args:
            latents: [images, channels, h, w].

        Returns:
            Float32, shape [images, 3, height, width], in [0, 1]; not rounded to 8 bits.
        """

    @abstractmethod
    def resample(self, latents: torch.Tensor, timestep: int, drawing: Drawing) -> torch.Tensor:
        """Noise latents to a timestep and denoise them from there with the pipeline's own sampler.

        The timestep is that of the sampler's grid nearest to the one asked for. At 0 the latents
        come back as they are; at T - 1 nothing is left of them: a sample with these seeds.

        Args:
            latents: Final latents, one row an image.
            timestep: In [0, T).
            drawing: The images, of whose steps those up to `timestep` are taken.

        Returns:
            Latents, shaped as given.
        """

    def timestep_density(self, height: int, width: int) -> torch.Tensor | None:
        """How often the family draws each timestep in training, unnormalised, shape [T].

        Args:
            height: Of the latents, in cells.
            width: Of the latents, in cells.

        Returns:
            None for uniform.
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
        """Return what the prediction should be: noise, v or x_0, as the model was trained."""

    @abstractmethod
    def switch(self, config: AdapterConfig) -> None:
        """Set where the newest LoRA acts while images are drawn; nothing where none is loaded.

        Args:
            config: Scale, blocks and the text encoder's range of timesteps. Prompts that are
                encoded from then on carry both embeddings where a range is set.
        """

    @abstractmethod
    def set_scheduler(self, name: str) -> None:
        """Replace the sampler by another diffusers scheduler with the same training schedule.

        Args:
            name: A class of `diffusers.schedulers`, such as "DDIMScheduler".

        Raises:
            TastemakerError: There is no such scheduler.
        """

    @abstractmethod
    def prepare_training(self, device: torch.device | None = None) -> None:
        """Choose what trains best: the fastest attention, and the last layer in fp32.

        Args:
            device: Where it will train; None: where the model is.
        """

    @abstractmethod
    def release_encoders(self, *, keep_text: bool = False) -> None:
        """Drop VAE and text encoders from memory, once everything is cached.

        Args:
            keep_text: Keep the text encoders, because they train.
        """

    @abstractmethod
    def fuse(self, layers: Mapping[str, Any]) -> None:
        """Add updates of LoRAs to the weights, in float32 and rounded once.

        Args:
            layers: By part and module, as `layers.read_layers` and `layers.summed` give them.

        Raises:
            TastemakerError: They do not fit.
        """

    @abstractmethod
    def fuse_adapters(self) -> None:
        """Add the attached LoRA to the weights, so that a new one can be trained on top."""

    @abstractmethod
    def attach(self, folder: Path) -> None:
        """Put a saved LoRA on the model, under the name `POLICY`.

        Args:
            folder: Of a LoRA in diffusers' form.

        Raises:
            TastemakerError: It belongs to another family, or to a network of other sizes.
        """

    @property
    @abstractmethod
    def adaptable_parts(self) -> tuple[str, ...]:
        """The pipeline's names of the networks that a LoRA may adapt."""

    @abstractmethod
    def attached_layers(self) -> dict[str, Any]:
        """Return the attached LoRA as it acts: factors and scale by part and module."""

    @abstractmethod
    def adapted_parts(self, folder: Path) -> set[str]:
        """Return which parts of the pipeline a LoRA in `folder` adapts, e.g. `{"unet"}`."""

    @abstractmethod
    def load_adapter(self, folder: Path, adapter: str) -> None:
        """Give an adapter that is put on the weights of a saved LoRA.

        Args:
            folder: What `save_adapter` wrote.
            adapter: Name of an adapter of the same layers and rank, on any part of the pipeline.

        Raises:
            TastemakerError: The LoRA has other layers, another rank or alpha, or a learned word.
        """

    @abstractmethod
    def save_adapter(self, folder: Path, adapter: str) -> None:
        """Save a LoRA as `pytorch_lora_weights.safetensors`, readable by `load_lora_weights`."""

    @abstractmethod
    def save_pipeline(self, folder: Path) -> None:
        """Save the whole pipeline, readable by `from_pretrained`."""
