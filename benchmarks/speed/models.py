"""Pipelines with random weights, of the real sizes of SD1.5 and SDXL and of smaller ones.

    python benchmarks/speed/models.py --family sd15 --dtype fp32 --output FOLDER

What a step takes in memory and time does not depend on what the weights are.
"""

import argparse
import contextlib
from collections.abc import Iterator
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

from tastemaker.backbones.loading import resolve
from tastemaker.core.hardware import torch_dtype

BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def clip(width: int, layers: int, heads: int, **options: Any) -> CLIPTextConfig:
    """A CLIP text encoder's configuration, of the full vocabulary."""
    return CLIPTextConfig(
        vocab_size=49408,
        max_position_embeddings=77,
        eos_token_id=tokenizer().eos_token_id,
        hidden_size=width,
        intermediate_size=4 * width,
        projection_dim=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        **options,
    )


def tokenizer() -> CLIPTokenizer:
    """nano's words."""
    words: CLIPTokenizer = CLIPTokenizer.from_pretrained(
        Path(resolve("nano")) / "tokenizer", model_max_length=77
    )
    return words


def autoencoder(width: int, pixels: int, scale: float) -> AutoencoderKL:
    """The autoencoder of all families: eight pixels are one latent."""
    return AutoencoderKL(
        block_out_channels=(width, 2 * width, 4 * width, 4 * width),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        latent_channels=4,
        sample_size=pixels,
        scaling_factor=scale,
    )


@contextlib.contextmanager
def networks(device: str, dtype: str) -> Iterator[None]:
    """Make networks on a device in a precision: SDXL in fp32 is 14 GB."""
    torch.set_default_dtype(torch_dtype(dtype))
    try:
        with torch.device(device):
            yield
    finally:
        torch.set_default_dtype(torch.float32)


def stable_diffusion(
    width: int, text: CLIPTextConfig, pixels: int, device: str, dtype: str
) -> StableDiffusionPipeline:
    """Stable Diffusion 1.x: a U-Net whose first level has `width` channels."""
    with networks(device, dtype):
        parts = {
            "vae": autoencoder(max(32, 2 * width // 5), pixels, 0.18215),
            "text_encoder": CLIPTextModel(text).eval(),
            "unet": UNet2DConditionModel(
                sample_size=pixels // 8,
                in_channels=4,
                out_channels=4,
                block_out_channels=(width, 2 * width, 4 * width, 4 * width),
                layers_per_block=2,
                cross_attention_dim=text.hidden_size,
                attention_head_dim=8,
            ),
        }
    return StableDiffusionPipeline(
        **parts,
        tokenizer=tokenizer(),
        scheduler=DDIMScheduler(**BETAS, clip_sample=False, set_alpha_to_one=False, steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def sd15(device: str = "cpu", dtype: str = "fp32") -> StableDiffusionPipeline:
    """Stable Diffusion 1.5: a U-Net of 860 million parameters, 512 pixels."""
    return stable_diffusion(320, clip(768, 12, 12), 512, device, dtype)


def portraits(device: str = "cpu", dtype: str = "fp32") -> StableDiffusionPipeline:
    """SD1.5 at a fifth of its width, 128 pixels: a size that two cores train."""
    return stable_diffusion(64, clip(256, 4, 4), 128, device, dtype)


def tiny(device: str = "cpu", dtype: str = "fp32") -> StableDiffusionPipeline:
    """SD1.5's shape in small, 64 pixels, for tests of scripts."""
    return stable_diffusion(32, clip(32, 2, 2), 64, device, dtype)


def sdxl(device: str = "cpu", dtype: str = "fp32") -> StableDiffusionXLPipeline:
    """SDXL: a U-Net of 2.6 billion parameters, 1024 pixels, two text encoders."""
    texts = clip(768, 12, 12), clip(1280, 32, 20, hidden_act="gelu")
    with networks(device, dtype):
        parts = {
            "vae": autoencoder(128, 1024, 0.13025),
            "text_encoder": CLIPTextModel(texts[0]).eval(),
            "text_encoder_2": CLIPTextModelWithProjection(texts[1]).eval(),
            "unet": UNet2DConditionModel(
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
        }
    return StableDiffusionXLPipeline(
        **parts,
        tokenizer=tokenizer(),
        tokenizer_2=tokenizer(),
        scheduler=EulerDiscreteScheduler(**BETAS, steps_offset=1, timestep_spacing="leading"),
        force_zeros_for_empty_prompt=True,
    )


FAMILIES = {"sd15": sd15, "sdxl": sdxl, "portraits": portraits, "tiny": tiny}


def main() -> None:
    """Build a pipeline and save it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--family", choices=FAMILIES, required=True)
    parser.add_argument("--dtype", choices=("fp32", "bf16", "fp16"), default="fp32")
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    torch.manual_seed(0)
    pipeline = FAMILIES[options.family](dtype=options.dtype)
    pipeline.save_pretrained(options.output)
    parts = {"unet": pipeline.unet, "vae": pipeline.vae, "text": pipeline.text_encoder}
    for name, part in parts.items():
        print(f"{name}: {sum(each.numel() for each in part.parameters()) / 1e6:.0f} M parameters")


if __name__ == "__main__":
    main()
