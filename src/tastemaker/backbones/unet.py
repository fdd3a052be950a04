"""Stable Diffusion 1.x and 2.x: a U-Net, one CLIP text encoder, epsilon, v or sample prediction."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import DDIMScheduler, DDPMScheduler
from diffusers.loaders.lora_base import LORA_WEIGHT_NAME_SAFE
from diffusers.models.attention_processor import AttnProcessor
from diffusers.utils.torch_utils import randn_tensor
from PIL import Image

from tastemaker.backbones.base import POLICY, Backbone
from tastemaker.backbones.conditioning import Conditioning
from tastemaker.backbones.differentiable import guided_step, unroll
from tastemaker.backbones.lora import load_lora, lora_layers, lora_metadata, part_of
from tastemaker.backbones.switches import OUTSIDE, switch_lora, text_range_arguments
from tastemaker.backbones.tokens import TOKEN_FILE, add_token, refuse_token
from tastemaker.errors import TastemakerError, nearest
from tastemaker.files import sort_header, write_tensors
from tastemaker.noise import NoiseSchedule
from tastemaker.sections import AdapterConfig


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
        self.text_range: tuple[int, int] | None = None
        self.prediction_type = self.schedule.config.prediction_type
        pipeline.set_progress_bar_config(disable=True)
        # No VAE is ever trained; rewards are propagated through it.
        pipeline.vae.requires_grad_(False)

    @property
    def denoiser(self) -> torch.nn.Module:
        unet: torch.nn.Module = self.pipeline.unet
        return unet

    @property
    def device(self) -> torch.device:
        device: torch.device = self.pipeline.unet.device
        return device

    @property
    def size(self) -> int:
        return int(self.pipeline.unet.config.sample_size * self.pipeline.vae_scale_factor)

    def set_scheduler(self, name: str) -> None:
        known = [each for each in dir(diffusers) if each.endswith("Scheduler")]
        if name not in known:
            raise TastemakerError(f"unknown scheduler {name!r}. {nearest(name, known)}")
        kind = getattr(diffusers, name)
        self.pipeline.scheduler = kind.from_config(self.pipeline.scheduler.config)

    @torch.no_grad()
    def encode_prompts(self, prompts: Sequence[str]) -> Conditioning:
        embeddings = {"prompt_embeds": self._encode(prompts)}
        if self.text_range is not None:
            self.pipeline.text_encoder.disable_adapters()
            embeddings[f"{OUTSIDE}prompt_embeds"] = self._encode(prompts)
            self.pipeline.text_encoder.enable_adapters()
        return embeddings

    def _encode(self, prompts: Sequence[str]) -> torch.Tensor:
        rows = [self.pipeline.encode_prompt(text, self.device, 1, False)[0] for text in prompts]
        return torch.cat(rows)

    @property
    def text_encoders(self) -> list[torch.nn.Module]:
        return [self.pipeline.text_encoder]

    def tokenize(self, prompts: Sequence[str]) -> Conditioning:
        tokenizer = self.pipeline.tokenizer
        tokens = tokenizer(
            # Writes a learned word of several vectors out, as `encode_prompt` does.
            self.pipeline.maybe_convert_prompt(list(prompts), tokenizer),
            padding="max_length",
            truncation=True,
            max_length=tokenizer.model_max_length,
            return_tensors="pt",
        )
        return {"input_ids": tokens["input_ids"]}

    def embed(self, text_encoders: Sequence[torch.nn.Module], tokens: Conditioning) -> Conditioning:
        (text_encoder,) = text_encoders
        return {"prompt_embeds": text_encoder(tokens["input_ids"])[0]}

    def add_token(self, name: str, *, initializer: str, vectors: int) -> list[torch.nn.Parameter]:
        tokenizer, text_encoder = self.pipeline.tokenizer, self.pipeline.text_encoder
        return [add_token(tokenizer, text_encoder, name, initializer=initializer, vectors=vectors)]

    def save_token(self, folder: Path, name: str) -> None:
        rows = self.pipeline.text_encoder.get_input_embeddings().rows
        write_tensors(folder / TOKEN_FILE, {name: rows}, {"format": "pt"})

    def load_token(self, folder: Path) -> None:
        self.pipeline.load_textual_inversion(str(folder / TOKEN_FILE))

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
        self.pipeline.scheduler.set_timesteps(num_inference_steps)
        first = int(self.pipeline.scheduler.timesteps[0])
        latents: torch.Tensor = self.pipeline(
            **self._prompt_arguments(conditioning, negative, first, guidance_scale > 1),
            generator=[torch.Generator("cpu").manual_seed(seed) for seed in seeds],
            num_inference_steps=num_inference_steps,
            guidance_scale=guidance_scale,
            height=height,
            width=width,
            output_type="latent",
        ).images
        return latents

    def _prompt_arguments(
        self, conditioning: Conditioning, negative: Conditioning, first: int, guided: bool
    ) -> dict[str, Any]:
        """Embeddings as the pipeline takes them; two of each where a range of timesteps is set."""
        both = {**conditioning, **{f"negative_{key}": value for key, value in negative.items()}}
        inside = {key: value for key, value in both.items() if OUTSIDE not in key}
        if self.text_range is None:
            return inside
        outside = {key.replace(OUTSIDE, ""): both[key] for key in both if OUTSIDE in key}
        return text_range_arguments(
            self.pipeline, inside, outside, self.text_range, first, guided=guided
        )

    def switch(self, config: AdapterConfig) -> None:
        if not any(POLICY in names for names in self.pipeline.get_list_adapters().values()):
            return
        switch_lora(self.pipeline, POLICY, scale=config.scale, blocks=config.blocks)
        adapted = self.pipeline.get_list_adapters().get("text_encoder", [])
        self.text_range = config.text_range if POLICY in adapted else None

    def sample_with_gradient(
        self,
        denoiser: torch.nn.Module,
        conditioning: Conditioning,
        negative: Conditioning,
        seeds: Sequence[int],
        *,
        num_inference_steps: int,
        guidance_scale: float,
        keep: int,
        height: int | None = None,
        width: int | None = None,
        checkpointing: bool = True,
    ) -> torch.Tensor:
        scheduler = DDIMScheduler.from_config(self.pipeline.scheduler.config)
        scheduler.set_timesteps(num_inference_steps, device=self.device)
        size, factor = self.pipeline.unet.config.sample_size, self.pipeline.vae_scale_factor
        noise = randn_tensor(
            (
                len(seeds),
                self.pipeline.unet.config.in_channels,
                height // factor if height else size,
                width // factor if width else size,
            ),
            generator=[torch.Generator("cpu").manual_seed(seed) for seed in seeds],
            device=self.device,
            dtype=next(iter(conditioning.values())).dtype,
        ).float()
        step = guided_step(
            partial(self.predict, denoiser), scheduler, conditioning, negative, guidance_scale
        )
        return unroll(step, noise, scheduler.timesteps, keep=keep, checkpointing=checkpointing)

    def decode_pixels(self, latents: torch.Tensor) -> torch.Tensor:
        vae = self.pipeline.vae
        latents = latents.to(vae.device, vae.dtype)
        pixels = vae.decode(latents / vae.config.scaling_factor, return_dict=False)[0]
        return (pixels.float() / 2 + 0.5).clamp(0, 1)

    @torch.no_grad()
    def resample(
        self,
        latents: torch.Tensor,
        timestep: int,
        conditioning: Conditioning,
        negative: Conditioning,
        seeds: Sequence[int],
        *,
        num_inference_steps: int,
        guidance_scale: float,
    ) -> torch.Tensor:
        steps, guidance = num_inference_steps, guidance_scale
        if timestep == 0:
            return latents
        if timestep == self.num_timesteps - 1:
            height, width = (side * self.pipeline.vae_scale_factor for side in latents.shape[-2:])
            return self.sample(
                conditioning,
                negative,
                seeds,
                num_inference_steps=steps,
                guidance_scale=guidance,
                height=height,
                width=width,
            )
        again = diffusers.AutoPipelineForImage2Image.from_pipe(self.pipeline)
        again.set_progress_bar_config(disable=True)
        again.scheduler.set_timesteps(steps)
        grid = again.scheduler.timesteps[:: again.scheduler.order].double()
        first = int((grid - timestep).abs().argmin())
        redrawn: torch.Tensor = again(
            image=latents.to(self.device, self.pipeline.unet.dtype),
            # The pipeline takes `int(strength * steps)` steps.
            strength=min((steps - first + 0.5) / steps, 1.0),
            **self._prompt_arguments(conditioning, negative, int(grid[first]), guidance > 1),
            generator=[torch.Generator("cpu").manual_seed(seed) for seed in seeds],
            num_inference_steps=steps,
            guidance_scale=guidance,
            output_type="latent",
        ).images
        return redrawn

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

    def release_encoders(self, *, keep_text: bool = False) -> None:
        self.pipeline.vae = None
        if not keep_text:
            self.pipeline.text_encoder = None
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def fuse_adapters(self) -> None:
        if self.pipeline.get_list_adapters():
            self.pipeline.fuse_lora()
            self.pipeline.unload_lora_weights()

    def adapted_parts(self, folder: Path) -> set[str]:
        state, _ = self.pipeline.lora_state_dict(folder)
        return {key.partition(".")[0] for key in state}

    def load_adapter(self, folder: Path, adapter: str) -> None:
        refuse_token(folder)
        state, _, metadata = self.pipeline.lora_state_dict(folder, return_lora_metadata=True)
        for part, module in self._adapted_by(adapter).items():
            if part == "text_encoder" and not part_of(state, part):
                continue  # a LoRA of the denoiser alone: the text encoder's begins afresh
            load_lora(module, adapter, part_of(state, part), part_of(metadata or {}, part), folder)

    def save_adapter(self, folder: Path, adapter: str) -> None:
        options: dict[str, Any] = {}
        for part, module in self._adapted_by(adapter).items():
            options[f"{part}_lora_layers"] = lora_layers(module, adapter)
            options[f"{part}_lora_adapter_metadata"] = lora_metadata(module, adapter)
        self.pipeline.save_lora_weights(folder, **options)
        sort_header(folder / LORA_WEIGHT_NAME_SAFE)

    def _adapted_by(self, adapter: str) -> dict[str, torch.nn.Module]:
        parts = {"unet": self.pipeline.unet, "text_encoder": self.pipeline.text_encoder}
        return {
            name: module
            for name, module in parts.items()
            if adapter in getattr(module, "peft_config", {})
        }

    def save_pipeline(self, folder: Path) -> None:
        self.pipeline.save_pretrained(folder)
