"""Stable Diffusion 1.x and 2.x: a U-Net, one CLIP text encoder, epsilon, v or sample prediction."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import DDPMScheduler
from diffusers.models.attention_processor import AttnProcessor
from PIL import Image

from tastemaker.backbones.base import Backbone, Conditioning
from tastemaker.errors import TastemakerError, nearest
from tastemaker.files import sort_header
from tastemaker.noise import NoiseSchedule


class UNetBackbone(Backbone):
    """A `StableDiffusionPipeline`.

    Args:
        name: What it was loaded from, for records and messages.
        pipeline: The loaded pipeline, on its device.
    """

    def __init__(self, name: str, pipeline: Any) -> None:
        self.name = name
        self.pipeline = pipeline
        self.schedule = DDPMScheduler.from_config(pipeline.scheduler.config)
        self.abar = self.schedule.alphas_cumprod.double()
        self.prediction_type = self.schedule.config.prediction_type
        pipeline.set_progress_bar_config(disable=True)

    @property
    def denoiser(self) -> torch.nn.Module:
        unet: torch.nn.Module = self.pipeline.unet
        return unet

    @property
    def device(self) -> torch.device:
        device: torch.device = self.pipeline.unet.device
        return device

    def set_scheduler(self, name: str) -> None:
        known = [each for each in dir(diffusers) if each.endswith("Scheduler")]
        if name not in known:
            raise TastemakerError(f"unknown scheduler {name!r}. {nearest(name, known)}")
        kind = getattr(diffusers, name)
        self.pipeline.scheduler = kind.from_config(self.pipeline.scheduler.config)

    @torch.no_grad()
    def encode_prompts(self, prompts: Sequence[str]) -> Conditioning:
        rows = [self.pipeline.encode_prompt(text, self.device, 1, False)[0] for text in prompts]
        return {"prompt_embeds": torch.cat(rows)}

    @torch.no_grad()
    def encode_images(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        vae = self.pipeline.vae
        posterior = vae.encode(pixels.to(vae.device, vae.dtype)).latent_dist
        scale = vae.config.scaling_factor
        return posterior.mean * scale, posterior.std * scale

    @torch.no_grad()
    def decode_latents(self, latents: torch.Tensor) -> list[Image.Image]:
        vae = self.pipeline.vae
        latents = latents.to(vae.device, vae.dtype)
        pixels = vae.decode(latents / vae.config.scaling_factor, return_dict=False)[0]
        images: list[Image.Image] = self.pipeline.image_processor.postprocess(pixels, "pil")
        return images

    @torch.no_grad()
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
        latents: torch.Tensor = self.pipeline(
            **conditioning,
            **{f"negative_{key}": value for key, value in negative.items()},
            generator=[torch.Generator("cpu").manual_seed(seed) for seed in seeds],
            num_inference_steps=num_inference_steps,
            guidance_scale=guidance_scale,
            height=height,
            width=width,
            output_type="latent",
        ).images
        return latents

    @property
    def noise_schedule(self) -> NoiseSchedule:
        return NoiseSchedule(self.abar.sqrt(), (1 - self.abar).sqrt(), self.prediction_type)

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
        )[0]
        return prediction

    def target(
        self, latents: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor
    ) -> torch.Tensor:
        if self.prediction_type == "v_prediction":
            return self.schedule.get_velocity(latents, noise, timesteps)
        return latents if self.prediction_type == "sample" else noise

    def prepare_training(self) -> None:
        # On a CPU the backward pass of fused attention costs more than all the rest of a small
        # network; plain attention gives the same numbers up to rounding.
        if self.device.type == "cpu":
            self.pipeline.unet.set_attn_processor(AttnProcessor())

    def release_encoders(self) -> None:
        self.pipeline.vae = None
        self.pipeline.text_encoder = None
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def fuse_adapters(self) -> None:
        if self.pipeline.get_list_adapters():
            self.pipeline.fuse_lora()
            self.pipeline.unload_lora_weights()

    def save_adapter(self, folder: Path, adapter: str) -> None:
        from diffusers.loaders.lora_base import LORA_WEIGHT_NAME_SAFE
        from diffusers.utils import convert_state_dict_to_diffusers
        from peft.utils import get_peft_model_state_dict

        unet = self.pipeline.unet
        layers = convert_state_dict_to_diffusers(
            get_peft_model_state_dict(unet, adapter_name=adapter)
        )
        metadata = unet.peft_config[adapter].to_dict()
        # Sets have no order of their own; sorted, the file has the same bytes on every run.
        metadata = {
            key: sorted(value) if isinstance(value, set) else value
            for key, value in metadata.items()
        }
        self.pipeline.save_lora_weights(
            folder,
            unet_lora_layers={key: layers[key].contiguous() for key in sorted(layers)},
            unet_lora_adapter_metadata=metadata,
        )
        sort_header(folder / LORA_WEIGHT_NAME_SAFE)

    def save_pipeline(self, folder: Path) -> None:
        self.pipeline.save_pretrained(folder)
