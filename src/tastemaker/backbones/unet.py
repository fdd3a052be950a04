"""Stable Diffusion 1.x and 2.x: a U-Net, one CLIP text encoder, epsilon, v or sample prediction."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import DDIMScheduler
from diffusers.models.attention_processor import AttnProcessor

from tastemaker.backbones.conditioning import Conditioning
from tastemaker.backbones.drawing import Drawing
from tastemaker.backbones.pipelines import PipelineBackbone
from tastemaker.backbones.schedulers import DIFFUSION, noise_schedule_of, sampler
from tastemaker.backbones.textual_inversion import TOKEN_FILE, add_token
from tastemaker.core.noise_schedule import NoiseSchedule
from tastemaker.storage.files import write_tensors


class UNetBackbone(PipelineBackbone):
    """A `StableDiffusionPipeline`: `x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) noise`.

    Args:
        name: What it was loaded from, for records and messages.
        pipeline: The loaded pipeline, on its device.
    """

    part = "unet"
    last = "conv_out"
    samplers = DIFFUSION

    def __init__(self, name: str, pipeline: Any) -> None:
        super().__init__(name, pipeline)
        pipeline.scheduler = sampler(type(pipeline.scheduler), pipeline.scheduler)
        self.schedule = noise_schedule_of(name, pipeline.scheduler)
        abar = self.schedule.alphas_cumprod.double()
        self.prediction_type = self.schedule.config.prediction_type
        self.noise_schedule = NoiseSchedule(abar.sqrt(), (1 - abar).sqrt(), self.prediction_type)

    def set_scheduler(self, name: str) -> None:
        super().set_scheduler(name)
        noise_schedule_of(self.name, self.pipeline.scheduler)

    def _encode(self, prompt: str) -> Conditioning:
        return {"prompt_embeds": self.pipeline.encode_prompt(prompt, self.device, 1, False)[0]}

    def tokenize(self, prompts: Sequence[str]) -> Conditioning:
        return {"input_ids": token_ids(self.pipeline, self.pipeline.tokenizer, prompts)}

    def embed(
        self,
        text_encoders: Sequence[torch.nn.Module],
        tokens: Conditioning,
        cached: Conditioning,
    ) -> Conditioning:
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

    def _grid(self, num_inference_steps: int, shape: Sequence[int]) -> Any:
        self.pipeline.scheduler.set_timesteps(num_inference_steps)
        return self.pipeline.scheduler

    def _deterministic(self, num_inference_steps: int, shape: Sequence[int]) -> Any:
        scheduler = sampler(DDIMScheduler, self.pipeline.scheduler)
        scheduler.set_timesteps(num_inference_steps, device=self.device)
        return scheduler

    @torch.no_grad()
    def resample(self, latents: torch.Tensor, timestep: int, drawing: Drawing) -> torch.Tensor:
        if timestep == 0:
            return latents
        if timestep == self.num_timesteps - 1:
            height, width = (side * self.pipeline.vae_scale_factor for side in latents.shape[-2:])
            return self.sample(drawing, height=height, width=width)
        steps = drawing.num_inference_steps
        again = diffusers.AutoPipelineForImage2Image.from_pipe(self.pipeline)
        again.set_progress_bar_config(disable=True)
        again.scheduler.set_timesteps(steps)
        grid = again.scheduler.timesteps[:: again.scheduler.order].double()
        first = int((grid - timestep).abs().argmin())
        redrawn: torch.Tensor = again(
            image=latents.to(self.device, self.pipeline.unet.dtype),
            # The pipeline takes `int(strength * steps)` steps.
            strength=min((steps - first + 0.5) / steps, 1.0),
            **self._pipeline_arguments(drawing, int(grid[first])),
        ).images
        return self._finite(redrawn)

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

    def prepare_training(self, device: torch.device | None = None) -> None:
        super().prepare_training(device)
        # On a CPU the backward pass of fused attention costs more than all the rest of a small
        # network; plain attention gives the same numbers up to rounding.
        if (device or self.device).type == "cpu":
            self.pipeline.unet.set_attn_processor(AttnProcessor())


def token_ids(pipeline: Any, tokenizer: Any, prompts: Sequence[str]) -> torch.Tensor:
    """Tokens as `encode_prompt` makes them, of one of a pipeline's CLIP tokenizers.

    Args:
        pipeline: The pipeline, which writes learned words of several vectors out where it can.
        tokenizer: One of its own.
        prompts: Texts.

    Returns:
        Shape [prompts, tokens].
    """
    convert = getattr(pipeline, "maybe_convert_prompt", None)
    texts = list(prompts) if convert is None else convert(list(prompts), tokenizer)
    ids: torch.Tensor = tokenizer(
        texts,
        padding="max_length",
        truncation=True,
        max_length=tokenizer.model_max_length,
        return_tensors="pt",
    )["input_ids"]
    return ids
