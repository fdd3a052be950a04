"""Stable Diffusion 1.x and 2.x: a U-Net, one CLIP text encoder, epsilon, v or sample prediction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import diffusers
import torch
from diffusers import DDIMScheduler

from tastemaker.backbones.base import Backbone
from tastemaker.backbones.conditioning import IMAGE_EMBEDS, Conditioning
from tastemaker.backbones.family import Configs
from tastemaker.backbones.sampling_batch import SamplingBatch, sampled
from tastemaker.backbones.schedulers import DIFFUSION, noise_schedule_of, sampler
from tastemaker.core.errors import TastemakerError
from tastemaker.core.noise_schedule import NoiseSchedule


class UNetBackbone(Backbone):
    """A `StableDiffusionPipeline`: `x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) noise`."""

    title = "Stable Diffusion 1 or 2"
    classes: ClassVar = {
        "unet": "UNet2DConditionModel",
        "vae": "AutoencoderKL",
        "text_encoder": "CLIPTextModel",
    }
    left_out: ClassVar[tuple[str, ...]] = ("safety_checker",)
    part = "unet"
    last = "conv_out"
    vae_options: ClassVar[
        tuple[str, ...]
    ] = ()  # files of the first models leave the scale to its default
    samplers = DIFFUSION
    added: ClassVar[str | None] = None
    """The U-Net's `addition_embed_type`: its input beside prompt embeddings."""

    @classmethod
    def check_options(cls, model: str, configs: Configs) -> None:
        config, latents = configs["unet"], configs["vae"].get("latent_channels", 4)
        takes, gives = (config.get(f"{way}_channels", 4) for way in ("in", "out"))
        if takes != latents or gives != latents:
            what = {2 * latents: "an instruct-pix2pix", 2 * latents + 1: "an inpainting"}.get(takes)
            raise TastemakerError(
                f"{model}: its U-Net takes {takes} channels and gives {gives}, its VAE makes"
                f" {latents}: {what or 'no text-to-image'} model. Take the text-to-image model that"
                " it was made from."
            )
        if config.get("time_cond_proj_dim") is not None:
            raise TastemakerError(
                f"{model}: its U-Net takes guidance as input (time_cond_proj_dim): a consistency"
                " model distilled to a few steps, which preference training on noisy latents would"
                " break. Take the model that it was distilled from."
            )
        others = ("class_embed_type", "num_class_embeds", "encoder_hid_dim_type")
        for option, known in {"addition_embed_type": cls.added, **dict.fromkeys(others)}.items():
            if config.get(option) != known:
                raise TastemakerError(
                    f"{model}: its U-Net has {option}={config.get(option)!r}; {cls.title} is read"
                    f" with {known!r} alone. Take a text-to-image model of that family."
                )

    def __init__(self, name: str, pipeline: Any) -> None:
        super().__init__(name, pipeline)
        pipeline.scheduler = sampler(type(pipeline.scheduler), pipeline.scheduler)
        self.schedule = noise_schedule_of(name, pipeline.scheduler)
        abar = self.schedule.alphas_cumprod.double()
        self.prediction_type = self.schedule.config.prediction_type
        self.noise_schedule = NoiseSchedule(abar.sqrt(), (1 - abar).sqrt(), self.prediction_type)

    def _encode(self, prompts: list[str]) -> Conditioning:
        return {"prompt_embeds": self.pipeline.encode_prompt(prompts, self.device, 1, False)[0]}

    def embed(
        self, text_encoders: Sequence[torch.nn.Module], tokens: Conditioning, cached: Conditioning
    ) -> Conditioning:
        (text_encoder,) = text_encoders
        return {"prompt_embeds": text_encoder(tokens["input_ids"])[0]}

    def grid(self, num_inference_steps: int, shape: Sequence[int]) -> Any:
        self.pipeline.scheduler.set_timesteps(num_inference_steps)
        return self.pipeline.scheduler

    def deterministic_grid(self, num_inference_steps: int, shape: Sequence[int]) -> Any:
        scheduler = sampler(DDIMScheduler, self.pipeline.scheduler)
        scheduler.set_timesteps(num_inference_steps, device=self.device)
        return scheduler

    @torch.no_grad()
    def resample(self, latents: torch.Tensor, timestep: int, batch: SamplingBatch) -> torch.Tensor:
        if timestep == 0:
            return latents
        if timestep == self.num_timesteps - 1:
            height, width = (side * self.pipeline.vae_scale_factor for side in latents.shape[-2:])
            return self.sample(batch, height=height, width=width)
        steps = batch.num_inference_steps
        again = diffusers.AutoPipelineForImage2Image.from_pipe(self.pipeline)
        again.set_progress_bar_config(disable=True)
        again.scheduler.set_timesteps(steps)
        grid = again.scheduler.timesteps[:: again.scheduler.order].double()
        first = int((grid - timestep).abs().argmin())
        return sampled(
            self,
            again,
            batch,
            int(grid[first]),
            image=latents.to(self.device, self.denoiser.dtype),
            # The pipeline takes `int(strength * steps)` steps.
            strength=min((steps - first + 0.5) / steps, 1.0),
        )

    def add_noise(
        self, latents: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor
    ) -> torch.Tensor:
        return self.schedule.add_noise(latents, noise, timesteps)

    def predict(
        self,
        denoiser: torch.nn.Module,
        noisy_latents: torch.Tensor,
        timesteps: torch.Tensor,
        conditioning: Conditioning,
    ) -> torch.Tensor:
        prediction: torch.Tensor = denoiser(
            noisy_latents,
            timesteps,
            encoder_hidden_states=conditioning["prompt_embeds"],
            return_dict=False,
            added_cond_kwargs=self._added(conditioning, noisy_latents) or None,
        )[0]
        return prediction

    def _added(self, conditioning: Conditioning, latents: torch.Tensor) -> dict[str, Any]:
        """Conditioning of the U-Net beside prompt embeddings: a list, one for each IP-Adapter."""
        picture = conditioning.get(IMAGE_EMBEDS)
        return {} if picture is None else {IMAGE_EMBEDS: [picture]}

    def target(
        self, latents: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor
    ) -> torch.Tensor:
        if self.prediction_type == "v_prediction":
            return self.schedule.get_velocity(latents, noise, timesteps)
        return latents if self.prediction_type == "sample" else noise
