"""Small models of every family: random weights in the real classes, saved as users' models are."""

import string
from collections.abc import Callable
from pathlib import Path

import torch
from diffusers import (
    DDIMScheduler,
    DiffusionPipeline,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
)
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5TokenizerFast,
)

from conftest import POSITIONS, text_options, write_vocabulary
from stable_diffusion import BETAS, SIZE, autoencoder, stable_diffusion, unet


def clip_tokenizer(folder: Path) -> tuple[CLIPTokenizer, dict[str, object]]:
    """A tokenizer of letters, and the options of a text encoder that reads it."""
    vocabulary = write_vocabulary(folder / "vocabulary")
    tokenizer = CLIPTokenizer.from_pretrained(folder / "vocabulary", model_max_length=POSITIONS)
    # Two layers: SDXL and SD3 read the last but one.
    return tokenizer, {**text_options(vocabulary), "num_hidden_layers": 2}


def t5(width: int) -> tuple[T5EncoderModel, T5TokenizerFast]:
    """T5 with a vocabulary of letters."""
    letters = string.ascii_lowercase + string.digits + string.punctuation
    special = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    vocabulary = special + [(letter, -3.0) for letter in letters]
    tokenizer = T5TokenizerFast(vocab=vocabulary, extra_ids=0, model_max_length=POSITIONS)
    options = T5Config(
        vocab_size=len(vocabulary), d_model=width, d_kv=8, d_ff=32, num_layers=1, num_heads=2
    )
    return T5EncoderModel(options), tokenizer


def sd1(folder: Path) -> StableDiffusionPipeline:
    """Stable Diffusion 1.x: predicts noise."""
    return stable_diffusion(*clip_tokenizer(folder))


def sd2(folder: Path) -> StableDiffusionPipeline:
    """Stable Diffusion 2.1: predicts v, linear projections."""
    pipeline = sd1(folder)
    pipeline.unet = unet(use_linear_projection=True)
    # `from_config` would drop the option: the config says that it was left to its default.
    pipeline.scheduler = DDIMScheduler(
        **BETAS,
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type="v_prediction",
    )
    return pipeline


def sdxl(folder: Path) -> StableDiffusionXLPipeline:
    """Stable Diffusion XL: two text encoders, six numbers of sizes."""
    tokenizer, options = clip_tokenizer(folder)
    return StableDiffusionXLPipeline(
        vae=autoencoder(scaling_factor=0.13025, force_upcast=True),
        text_encoder=CLIPTextModel(CLIPTextConfig(**options)),
        text_encoder_2=CLIPTextModelWithProjection(CLIPTextConfig(**options)),
        tokenizer=tokenizer,
        tokenizer_2=tokenizer,
        unet=unet(
            cross_attention_dim=32,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=16 + 6 * 8,
            use_linear_projection=True,
        ),
        scheduler=EulerDiscreteScheduler(**BETAS, steps_offset=1, timestep_spacing="leading"),
        force_zeros_for_empty_prompt=True,
    )


def sd3(folder: Path) -> StableDiffusion3Pipeline:
    """Stable Diffusion 3.x: a flow, two CLIP text encoders and T5."""
    tokenizer, options = clip_tokenizer(folder)
    encoder, letters = t5(32)
    return StableDiffusion3Pipeline(
        transformer=SD3Transformer2DModel(
            sample_size=SIZE // 2,
            patch_size=2,
            in_channels=16,
            num_layers=2,
            attention_head_dim=8,
            num_attention_heads=2,
            joint_attention_dim=32,
            caption_projection_dim=16,
            pooled_projection_dim=32,
            out_channels=16,
            pos_embed_max_size=24,
            qk_norm="rms_norm",
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=autoencoder(16, scaling_factor=1.5305, shift_factor=0.0609),
        text_encoder=CLIPTextModelWithProjection(CLIPTextConfig(**options)),
        tokenizer=tokenizer,
        text_encoder_2=CLIPTextModelWithProjection(CLIPTextConfig(**options)),
        tokenizer_2=tokenizer,
        text_encoder_3=encoder,
        tokenizer_3=letters,
    )


def flux(folder: Path) -> FluxPipeline:
    """FLUX.1-dev: a flow on packed latents that is told its guidance."""
    tokenizer, options = clip_tokenizer(folder)
    encoder, letters = t5(32)
    return FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(
            shift=3.0, use_dynamic_shifting=True, base_shift=0.5, max_shift=1.15
        ),
        vae=autoencoder(16, scaling_factor=0.3611, shift_factor=0.1159),
        text_encoder=CLIPTextModel(CLIPTextConfig(**options)),
        tokenizer=tokenizer,
        text_encoder_2=encoder,
        tokenizer_2=letters,
        transformer=FluxTransformer2DModel(
            in_channels=64,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=32,
            pooled_projection_dim=16,
            guidance_embeds=True,
            axes_dims_rope=(4, 6, 6),
        ),
    )


FAMILIES: dict[str, Callable[[Path], DiffusionPipeline]] = {
    "sd1": sd1,
    "sd2": sd2,
    "sdxl": sdxl,
    "sd3": sd3,
    "flux": flux,
}


def save_family(name: str, folder: Path) -> Path:
    """Build a family's small model and save it.

    Args:
        name: Of `FAMILIES`.
        folder: An empty one.

    Returns:
        The pipeline's folder.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        pipeline = FAMILIES[name](folder)
    pipeline.save_pretrained(folder / "pipeline")
    return folder / "pipeline"
