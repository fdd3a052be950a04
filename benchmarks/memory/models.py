"""Pipelines of the real sizes of SD1.5 and SDXL with random weights, saved as users' models are.

    python benchmarks/memory/models.py --family sd15 --dtype fp32 --output FOLDER

What a step takes in memory and time does not depend on what the weights are.
"""

import argparse
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    EulerDiscreteScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
)

from tastemaker.backbones.places import resolve
from tastemaker.core.hardware import torch_dtype

BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
CLIP_L = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "projection_dim": 768,
}
CLIP_G = {
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_hidden_layers": 32,
    "num_attention_heads": 20,
    "projection_dim": 1280,
    "hidden_act": "gelu",
}


def autoencoder(size: int, scale: float) -> AutoencoderKL:
    """The autoencoder of both families."""
    return AutoencoderKL(
        block_out_channels=(128, 256, 512, 512),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        latent_channels=4,
        sample_size=size,
        scaling_factor=scale,
    )


def tokenizer() -> CLIPTokenizer:
    """nano's words; the text encoders are told of the full vocabulary."""
    words: CLIPTokenizer = CLIPTokenizer.from_pretrained(
        Path(resolve("nano")) / "tokenizer", model_max_length=77
    )
    return words


def text_config(options: dict[str, Any]) -> CLIPTextConfig:
    """A CLIP text encoder's configuration."""
    end = tokenizer().eos_token_id
    return CLIPTextConfig(vocab_size=49408, max_position_embeddings=77, eos_token_id=end, **options)


def sd15() -> StableDiffusionPipeline:
    """Stable Diffusion 1.5: a U-Net of 860 million parameters, 512 pixels."""
    return StableDiffusionPipeline(
        vae=autoencoder(512, 0.18215),
        text_encoder=CLIPTextModel(text_config(CLIP_L)),
        tokenizer=tokenizer(),
        unet=UNet2DConditionModel(
            sample_size=64,
            in_channels=4,
            out_channels=4,
            block_out_channels=(320, 640, 1280, 1280),
            layers_per_block=2,
            cross_attention_dim=768,
            attention_head_dim=8,
        ),
        scheduler=DDIMScheduler(**BETAS, clip_sample=False, set_alpha_to_one=False, steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def sdxl() -> StableDiffusionXLPipeline:
    """SDXL: a U-Net of 2.6 billion parameters, 1024 pixels, two text encoders."""
    return StableDiffusionXLPipeline(
        vae=autoencoder(1024, 0.13025),
        text_encoder=CLIPTextModel(text_config(CLIP_L)),
        text_encoder_2=CLIPTextModelWithProjection(text_config(CLIP_G)),
        tokenizer=tokenizer(),
        tokenizer_2=tokenizer(),
        unet=UNet2DConditionModel(
            sample_size=128,
            in_channels=4,
            out_channels=4,
            block_out_channels=(320, 640, 1280),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            layers_per_block=2,
            transformer_layers_per_block=(1, 2, 10),
            attention_head_dim=(5, 10, 20),
            cross_attention_dim=2048,
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=256,
            projection_class_embeddings_input_dim=2816,
        ),
        scheduler=EulerDiscreteScheduler(**BETAS, steps_offset=1, timestep_spacing="leading"),
        force_zeros_for_empty_prompt=True,
    )


FAMILIES = {"sd15": sd15, "sdxl": sdxl}


def main() -> None:
    """Build a pipeline and save it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--family", choices=FAMILIES, required=True)
    parser.add_argument("--dtype", choices=("fp32", "bf16", "fp16"), default="fp32")
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    torch.manual_seed(0)
    # Made in the precision that is saved: the whole of SDXL in fp32 is 14 GB.
    torch.set_default_dtype(torch_dtype(options.dtype))
    pipeline = FAMILIES[options.family]()
    torch.set_default_dtype(torch.float32)
    pipeline.save_pretrained(options.output)
    parts = {"unet": pipeline.unet, "vae": pipeline.vae, "text": pipeline.text_encoder}
    for name, part in parts.items():
        print(f"{name}: {sum(each.numel() for each in part.parameters()) / 1e6:.0f} M parameters")


if __name__ == "__main__":
    main()
