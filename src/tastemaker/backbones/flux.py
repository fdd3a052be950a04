"""FLUX.1: a rectified flow on packed latents, with guidance as an input."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch

from tastemaker.backbones.conditioning import Conditioning
from tastemaker.backbones.family import Configs
from tastemaker.backbones.flow import FlowBackbone
from tastemaker.backbones.gradient_sampling import Step, guided_step
from tastemaker.backbones.sampling_batch import SamplingBatch
from tastemaker.core.errors import TastemakerError

TRAINED_AT = 1.0
"""Guidance input of FLUX.1-dev in training: 1 is the prediction without guidance."""


class FluxBackbone(FlowBackbone):
    """A `FluxPipeline`: T5, and for the pooled text a CLIP encoder, on which a LoRA may train.

    Guidance is one of the transformer's inputs (FLUX.1-dev) or absent (schnell):
    negative prompts have no effect.
    """

    title = "FLUX.1"
    classes: ClassVar = {
        "transformer": "FluxTransformer2DModel",
        "vae": "AutoencoderKL",
        "text_encoder": "CLIPTextModel",
        "text_encoder_2": "T5EncoderModel",
    }
    takes_negative = False
    takes_text_range = False  # one pooled embedding serves all timesteps
    packed = 4

    @classmethod
    def check_options(cls, model: str, configs: Configs) -> None:
        super().check_options(model, configs)
        if (size := configs["transformer"].get("patch_size", 1)) != 1:
            raise TastemakerError(
                f"{model}: its transformer has patch_size={size}, FLUX.1's is 1; take a FLUX.1"
                " model."
            )

    @classmethod
    def distilled(cls, config: Mapping[str, Any]) -> str | None:
        return None if config.get("guidance_embeds") else "guidance_embeds=false"

    @property
    def channels(self) -> int:
        return super().channels // self.packed

    def grid(self, num_inference_steps: int, shape: Sequence[int]) -> Any:
        scheduler, steps = self.pipeline.scheduler, num_inference_steps
        scheduler.set_timesteps(
            sigmas=np.linspace(1.0, 1 / steps, steps),
            device=self.device,
            mu=self.mu(*shape[1:]) if scheduler.config.use_dynamic_shifting else None,
        )
        return scheduler

    def _encode(self, prompts: list[str]) -> Conditioning:
        embeddings, pooled, _ = self.pipeline.encode_prompt(prompts, prompts, device=self.device)
        return {"prompt_embeds": embeddings, "pooled_prompt_embeds": pooled}

    def embed(
        self, text_encoders: Sequence[torch.nn.Module], tokens: Conditioning, cached: Conditioning
    ) -> Conditioning:
        (text_encoder,) = text_encoders
        pooled = text_encoder(tokens["input_ids"]).pooler_output
        return {"prompt_embeds": cached["prompt_embeds"], "pooled_prompt_embeds": pooled}

    def sample(
        self, batch: SamplingBatch, *, height: int | None = None, width: int | None = None
    ) -> torch.Tensor:
        packed = super().sample(batch, height=height, width=width)
        _, high, wide = self.latent_shape(height, width)
        return _unpacked(packed, high, wide)

    def step(self, denoiser: torch.nn.Module, scheduler: Any, batch: SamplingBatch) -> Step:
        predict = partial(self.velocity, denoiser, guidance=batch.guidance_scale)
        return guided_step(predict, scheduler, replace(batch, guidance_scale=1.0))

    def velocity(
        self,
        denoiser: torch.nn.Module,
        noisy_latents: torch.Tensor,
        timestep: torch.Tensor,
        conditioning: Conditioning,
        guidance: float = TRAINED_AT,
    ) -> torch.Tensor:
        images, _, high, wide = noisy_latents.shape
        scale = noisy_latents.new_full((images,), guidance, dtype=torch.float32)
        embeddings = conditioning["prompt_embeds"]
        velocity: torch.Tensor = denoiser(
            hidden_states=_packed(noisy_latents),
            timestep=(timestep.expand(images) / self.num_timesteps).to(noisy_latents.dtype),
            guidance=scale if self.pipeline.transformer.config.guidance_embeds else None,
            encoder_hidden_states=embeddings,
            pooled_projections=conditioning["pooled_prompt_embeds"],
            txt_ids=embeddings.new_zeros(embeddings.shape[1], 3),
            img_ids=_places(high // 2, wide // 2, embeddings.device).to(embeddings),
            return_dict=False,
        )[0]
        return _unpacked(velocity, high, wide)


def _packed(latents: torch.Tensor) -> torch.Tensor:
    """[images, c, h, w] to tokens of two by two latents, [images, h/2 * w/2, 4 c]."""
    images, channels, high, wide = latents.shape
    blocks = latents.view(images, channels, high // 2, 2, wide // 2, 2)
    return blocks.permute(0, 2, 4, 1, 3, 5).reshape(images, -1, 4 * channels)


def _unpacked(tokens: torch.Tensor, high: int, wide: int) -> torch.Tensor:
    """Inverse of `_packed`."""
    blocks = tokens.view(len(tokens), high // 2, wide // 2, -1, 2, 2)
    return blocks.permute(0, 3, 1, 4, 2, 5).reshape(len(tokens), -1, high, wide)


def _places(rows: int, columns: int, device: torch.device) -> torch.Tensor:
    """Position of each token: 0, row and column, shape [rows * columns, 3]."""
    row, column = torch.meshgrid(
        torch.arange(rows, device=device), torch.arange(columns, device=device), indexing="ij"
    )
    return torch.stack([torch.zeros_like(row), row, column], -1).view(-1, 3)
