"""Rectified flows: `x_t = (1 - s) x_0 + s noise`, a transformer that predicts `noise - x_0`.

A timestep t in [0, T) is the noise level `s = (t + 1) / T`, the transformer's input. The shift of a
family moves the levels of training and sampling with the size of the images.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

import torch
from torch.nn.functional import pad

from tastemaker.backbones.base import Backbone
from tastemaker.backbones.conditioning import Conditioning
from tastemaker.backbones.family import Configs
from tastemaker.backbones.gradient_sampling import Step, guided_step
from tastemaker.backbones.sampling_batch import SamplingBatch, ranged, require_finite
from tastemaker.backbones.schedulers import FLOW
from tastemaker.core.errors import TastemakerError
from tastemaker.core.noise_schedule import NoiseSchedule


class FlowBackbone(Backbone):
    """Common base of SD3.x and FLUX."""

    part = "transformer"
    last = "proj_out"
    samplers = FLOW
    learns_words = False  # prompts go through T5 too
    packed: ClassVar[int] = 1
    """Latents that the transformer takes as channels of one."""

    @classmethod
    def check_options(cls, model: str, configs: Configs) -> None:
        config = configs["transformer"]
        latents = configs["vae"].get("latent_channels", 4) * cls.packed
        takes = config.get("in_channels", 16 * cls.packed)
        gives = config.get("out_channels") or takes
        if takes != latents or gives != latents:
            raise TastemakerError(
                f"{model}: its transformer takes {takes} channels and gives {gives}, where its"
                f" VAE's latents are {latents}: a model of another task (fill, control) or with"
                " another VAE. Take the text-to-image model that it was made from."
            )

    def __init__(self, name: str, pipeline: Any) -> None:
        super().__init__(name, pipeline)
        length = int(pipeline.scheduler.config.num_train_timesteps)
        sigma = torch.arange(1, length + 1, dtype=torch.float64) / length
        self.noise_schedule = NoiseSchedule(1 - sigma, sigma, "flow")
        self.levels = sigma.float()

    @property
    def grain(self) -> int:
        # FLUX packs two by two latents into a token before the transformer sees them.
        return int(self.pipeline.vae_scale_factor * max(self.denoiser.config.patch_size, 2))

    def shift(self, height: int, width: int) -> float:
        """Return the shift of noise levels for latents of a size: `logit s + log shift`."""
        options = self.pipeline.scheduler.config
        if not options.use_dynamic_shifting:
            return float(options.shift)
        mu = self.mu(height, width)
        return mu if options.time_shift_type == "linear" else math.exp(mu)

    def mu(self, height: int, width: int) -> float:
        """Return the pipelines' own measure of a shift that grows with the size."""
        options = self.pipeline.scheduler.config
        few, many = options.base_image_seq_len, options.max_image_seq_len
        slope = (options.max_shift - options.base_shift) / (many - few)
        return float(options.base_shift + slope * (height * width / 4 - few))

    def timestep_density(self, height: int, width: int) -> torch.Tensor:
        # Between grid points: at s = 1 itself the density of a logit-normal is 0.
        level = self.noise_schedule.sigma - 0.5 / self.num_timesteps
        distance = torch.logit(level) - math.log(self.shift(height, width))
        return torch.exp(-0.5 * distance**2) / (level * (1 - level))

    def deterministic_grid(self, num_inference_steps: int, shape: Sequence[int]) -> Any:
        sigmas = self.grid(num_inference_steps, shape).sigmas.double()
        return Euler(sigmas, self.num_timesteps)

    @torch.no_grad()
    def resample(self, latents: torch.Tensor, timestep: int, batch: SamplingBatch) -> torch.Tensor:
        if timestep == 0:
            return latents
        shape = latents.shape[1:]
        euler = self.deterministic_grid(batch.num_inference_steps, shape)
        level = self.noise_schedule.sigma[timestep].to(euler.sigmas)
        first = int((euler.sigmas[:-1] - level).abs().argmin())
        begin = float(euler.sigmas[first])
        noise = batch.noise(shape, self.device)
        noisy = (1 - begin) * latents.to(noise) + begin * noise
        inside, outside = (
            self.step(self.denoiser, euler, replace(batch, conditioning=given, negative=without))
            for given, without in zip(
                ranged(batch.conditioning), ranged(batch.negative), strict=True
            )
        )
        low, high = self.text_range or (0, self.num_timesteps)
        for each in euler.timesteps[first:]:
            step = inside if low <= min(float(each), self.num_timesteps - 1) < high else outside
            noisy = step(noisy, each)
        return require_finite(self.name, noisy.to(latents))

    def add_noise(
        self, latents: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor
    ) -> torch.Tensor:
        level = self._levels(timesteps).to(latents.dtype).view(-1, 1, 1, 1)
        return (1 - level) * latents + level * noise

    def _levels(self, timesteps: torch.Tensor) -> torch.Tensor:
        # Moved once: a step that copied them would wait for the device.
        self.levels = self.levels.to(timesteps.device)
        return self.levels[timesteps]

    def target(
        self, latents: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor
    ) -> torch.Tensor:
        return noise - latents

    def predict(
        self,
        denoiser: torch.nn.Module,
        noisy_latents: torch.Tensor,
        timesteps: torch.Tensor,
        conditioning: Conditioning,
    ) -> torch.Tensor:
        levels = self._levels(timesteps) * self.num_timesteps
        return self.velocity(denoiser, noisy_latents, levels, conditioning)

    @abstractmethod
    def velocity(
        self,
        denoiser: torch.nn.Module,
        noisy_latents: torch.Tensor,
        timestep: torch.Tensor,
        conditioning: Conditioning,
    ) -> torch.Tensor:
        """Run a denoiser at noise levels `timestep / T`, one for all images or one per image."""

    def step(self, denoiser: torch.nn.Module, scheduler: Any, batch: SamplingBatch) -> Step:
        return guided_step(partial(self.velocity, denoiser), scheduler, batch)


class SD3Backbone(FlowBackbone):
    """A `StableDiffusion3Pipeline`: two CLIP text encoders, on which a LoRA may train, and T5."""

    title = "SD3"
    classes: ClassVar = {
        "transformer": "SD3Transformer2DModel",
        "vae": "AutoencoderKL",
        "text_encoder": "CLIPTextModelWithProjection",
        "text_encoder_2": "CLIPTextModelWithProjection",
        "text_encoder_3": "T5EncoderModel",
    }
    optional = ("text_encoder_3",)
    text_parts = ("text_encoder", "text_encoder_2")

    def latent_shape(self, height: int | None, width: int | None) -> tuple[int, int, int]:
        shape = super().latent_shape(height, width)
        options = self.pipeline.transformer.config
        most = options.pos_embed_max_size * options.patch_size
        if max(shape[1:]) > most:
            raise TastemakerError(
                f"{self.name} draws at most {most * self.pipeline.vae_scale_factor} pixels per"
                f" side; {height} x {width} exceeds that."
            )
        return shape

    def grid(self, num_inference_steps: int, shape: Sequence[int]) -> Any:
        scheduler = self.pipeline.scheduler
        dynamic = scheduler.config.use_dynamic_shifting
        mu = self.mu(*shape[1:]) if dynamic else None
        scheduler.set_timesteps(num_inference_steps, device=self.device, mu=mu)
        return scheduler

    def _encode(self, prompts: list[str]) -> Conditioning:
        embeddings, _, pooled, _ = self.pipeline.encode_prompt(
            prompts, prompts, prompts, device=self.device, do_classifier_free_guidance=False
        )
        return {"prompt_embeds": embeddings, "pooled_prompt_embeds": pooled}

    def embed(
        self, text_encoders: Sequence[torch.nn.Module], tokens: Conditioning, cached: Conditioning
    ) -> Conditioning:
        outputs = [
            encoder(ids, output_hidden_states=True)
            for encoder, ids in zip(text_encoders, tokens.values(), strict=True)
        ]
        clip = torch.cat([each.hidden_states[-2] for each in outputs], -1)
        whole = cached["prompt_embeds"]
        clip = pad(clip, (0, whole.shape[-1] - clip.shape[-1]))
        return {
            "prompt_embeds": torch.cat([clip, whole[:, clip.shape[1] :].to(clip)], 1),
            "pooled_prompt_embeds": torch.cat([each[0] for each in outputs], -1),
        }

    def velocity(
        self,
        denoiser: torch.nn.Module,
        noisy_latents: torch.Tensor,
        timestep: torch.Tensor,
        conditioning: Conditioning,
    ) -> torch.Tensor:
        velocity: torch.Tensor = denoiser(
            hidden_states=noisy_latents,
            timestep=timestep.expand(len(noisy_latents)),
            encoder_hidden_states=conditioning["prompt_embeds"],
            pooled_projections=conditioning["pooled_prompt_embeds"],
            return_dict=False,
        )[0]
        return velocity


class Euler:
    """The flow's sampler as a pure function: `x + (s' - s) velocity`.

    Args:
        sigmas: Levels of noise from first to last, then 0.
        length: T.
    """

    def __init__(self, sigmas: torch.Tensor, length: int) -> None:
        self.sigmas = sigmas
        self.timesteps = sigmas[:-1] * length

    def step(
        self,
        velocity: torch.Tensor,
        timestep: torch.Tensor,
        latents: torch.Tensor,
        return_dict: bool = False,
    ) -> tuple[torch.Tensor]:
        """Take the step at one of `timesteps`."""
        place = int((self.timesteps - timestep).abs().argmin())
        stride = float(self.sigmas[place + 1] - self.sigmas[place])
        return (latents + stride * velocity,)
