"""A small Stable Diffusion 1.x: random weights in the real classes."""

from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

SIZE = 32
"""Pixels a side; 16 latents."""

BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def autoencoder(channels: int = 4, **options: float) -> AutoencoderKL:
    """Two levels: 32 pixels are 16 latents."""
    return AutoencoderKL(
        block_out_channels=(8, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        layers_per_block=1,
        latent_channels=channels,
        norm_num_groups=4,
        sample_size=SIZE,
        **options,
    )


def unet(**options: object) -> UNet2DConditionModel:
    """Two levels, attention in one."""
    return UNet2DConditionModel(
        sample_size=SIZE // 2,
        in_channels=4,
        out_channels=4,
        block_out_channels=(8, 16),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=1,
        attention_head_dim=2,
        norm_num_groups=4,
        **{"cross_attention_dim": 16, **options},
    )


def stable_diffusion(
    tokenizer: CLIPTokenizer, text_options: dict[str, object]
) -> StableDiffusionPipeline:
    """The pipeline, which predicts noise.

    Args:
        tokenizer: Of the text encoder.
        text_options: Of its configuration.
    """
    return StableDiffusionPipeline(
        vae=autoencoder(),
        text_encoder=CLIPTextModel(CLIPTextConfig(**text_options)),
        tokenizer=tokenizer,
        unet=unet(),
        scheduler=DDIMScheduler(**BETAS, clip_sample=False, set_alpha_to_one=False, steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
