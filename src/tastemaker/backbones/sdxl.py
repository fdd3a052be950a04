"""Stable Diffusion XL: two text encoders, and a U-Net with size and crop conditioning."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch

from tastemaker.backbones.conditioning import Conditioning
from tastemaker.backbones.family import Configs
from tastemaker.backbones.unet import UNetBackbone
from tastemaker.core.errors import TastemakerError


class SDXLBackbone(UNetBackbone):
    """A `StableDiffusionXLPipeline`.

    The U-Net takes six numbers, `time_ids`: original height and width, top and left of the crop,
    target height and width.
    """

    title = "Stable Diffusion XL"
    classes: ClassVar = {
        **UNetBackbone.classes,
        "text_encoder_2": "CLIPTextModelWithProjection",
    }
    left_out = ()
    text_parts = ("text_encoder", "text_encoder_2")
    vae_options = ("scaling_factor",)
    added = "text_time"

    @classmethod
    def check_options(cls, model: str, configs: Configs) -> None:
        super().check_options(model, configs)
        unet, encoder = configs["unet"], configs["text_encoder_2"]
        width = unet.get("projection_class_embeddings_input_dim") or 0
        each = unet.get("addition_time_embed_dim") or 0
        numbers = (width - encoder.get("projection_dim", 512)) / max(each, 1)
        if numbers != 6:
            raise TastemakerError(
                f"{model}: its U-Net takes {numbers:g} numbers beside the prompt, an SDXL base"
                " model six (sizes and crop): it may be a refiner. Take the base model."
            )

    def _encode(self, prompts: list[str]) -> Conditioning:
        embeddings, _, pooled, _ = self.pipeline.encode_prompt(
            prompts, device=self.device, do_classifier_free_guidance=False
        )
        return {"prompt_embeds": embeddings, "pooled_prompt_embeds": pooled}

    def encode_negative(self, prompt: str) -> Conditioning:
        encoded = self.encode_prompts([prompt])
        if prompt or not self.pipeline.config.force_zeros_for_empty_prompt:
            return encoded
        return {name: torch.zeros_like(value) for name, value in encoded.items()}

    def embed(
        self, text_encoders: Sequence[torch.nn.Module], tokens: Conditioning, cached: Conditioning
    ) -> Conditioning:
        outputs = [
            encoder(ids, output_hidden_states=True)
            for encoder, ids in zip(text_encoders, tokens.values(), strict=True)
        ]
        return {
            "prompt_embeds": torch.cat([each.hidden_states[-2] for each in outputs], -1),
            "pooled_prompt_embeds": outputs[-1][0],
        }

    def image_conditioning(self, row: dict[str, Any], latents: torch.Tensor) -> Conditioning:
        height, width = (side * self.pipeline.vae_scale_factor for side in latents.shape[-2:])
        original = row.get("original_size") or (height, width)
        # Pools of version 0.1.0 call the column `crop_corner`.
        corner = row.get("crops_coords_top_left") or row.get("crop_corner") or (0, 0)
        return {"time_ids": torch.tensor([[*original, *corner, height, width]]).float()}

    def _added(self, conditioning: Conditioning, latents: torch.Tensor) -> dict[str, Any]:
        sizes = conditioning.get("time_ids")
        if sizes is None:  # images sampled at this size
            own = self.image_conditioning({}, latents[0])["time_ids"]
            sizes = own.to(latents.device).expand(len(latents), -1)
        return super()._added(conditioning, latents) | {
            "text_embeds": conditioning["pooled_prompt_embeds"],
            "time_ids": sizes.to(conditioning["prompt_embeds"]),
        }
