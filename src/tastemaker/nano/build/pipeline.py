"""Put the trained parts together as a `StableDiffusionPipeline` and draw with it."""

from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from PIL import Image, ImageDraw
from safetensors.torch import load_file
from transformers import CLIPTextModel, CLIPTokenizer

from tastemaker.nano import MODEL
from tastemaker.nano.build.text import WIDTH, text_encoder, tokenizer
from tastemaker.nano.build.vae import load

CHANNELS = (48, 96, 128)
GUIDANCE = 2.5
STEPS = 20
LAST = "careless"
"""Name of the snapshot that is shipped."""


def unet(channels: tuple[int, ...] = CHANNELS) -> UNet2DConditionModel:
    """A fresh U-Net, of 5.2 million parameters by default."""
    return UNet2DConditionModel(
        sample_size=16,
        in_channels=4,
        out_channels=4,
        # Attention at 8x8 and 4x4 alone: at 16x16 it would cost a third of the time on a CPU.
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=channels,
        layers_per_block=1,
        attention_head_dim=2,
        cross_attention_dim=WIDTH,
        # Few, wide groups: the mean of a group is lost, and in narrow groups the colour with it.
        norm_num_groups=4,
    )


def scheduler() -> DDIMScheduler:
    """The noise schedule of Stable Diffusion 1.x, with the prediction of v of 2.x."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        prediction_type="v_prediction",
        set_alpha_to_one=False,
        steps_offset=1,
    )


def assemble(
    vae: AutoencoderKL,
    words: CLIPTokenizer,
    text: CLIPTextModel,
    denoiser: UNet2DConditionModel,
) -> StableDiffusionPipeline:
    """The parts as one pipeline, without safety checker."""
    pipe = StableDiffusionPipeline(
        vae=vae,
        text_encoder=text.eval(),
        tokenizer=words,
        unet=denoiser.eval(),
        scheduler=scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def snapshot(work: Path, name: str = LAST) -> StableDiffusionPipeline:
    """The averaged weights of `work/snapshots/<name>.safetensors`; the package's without any."""
    if not (work / "snapshots").exists():
        pipe = StableDiffusionPipeline.from_pretrained(MODEL, dtype=torch.float32)
        pipe.set_progress_bar_config(disable=True)
        return pipe
    weights = load_file(work / "snapshots" / f"{name}.safetensors")
    words = tokenizer(work)
    channels = [len(weights[f"unet.down_blocks.{n}.resnets.0.conv1.bias"]) for n in range(3)]
    denoiser, text = unet(tuple(channels)), text_encoder(words)
    for prefix, module in (("unet.", denoiser), ("text.", text)):
        part = {key.removeprefix(prefix): v for key, v in weights.items() if key.startswith(prefix)}
        # Buffers (position ids) are not in the snapshot: only parameters are averaged.
        left_out = module.load_state_dict({k: v.float() for k, v in part.items()}, strict=False)
        if left_out.unexpected_keys:
            raise RuntimeError(f"{name}: unexpected {left_out.unexpected_keys[:3]}")
    return assemble(load(work), words, text, denoiser)


@torch.no_grad()
def draw(
    pipe: StableDiffusionPipeline,
    captions: list[str],
    seeds: list[int],
    guidance: float = GUIDANCE,
    steps: int = STEPS,
    batch: int = 32,
) -> list[Image.Image]:
    """One picture a caption, each from its own seed."""
    pictures: list[Image.Image] = []
    for start in range(0, len(captions), batch):
        generators = [torch.Generator().manual_seed(seed) for seed in seeds[start : start + batch]]
        output = pipe(
            captions[start : start + batch],
            height=64,
            width=64,
            guidance_scale=guidance,
            num_inference_steps=steps,
            generator=generators,
        )
        pictures += output.images
    return pictures


def sheet(pictures: list[Image.Image], captions: list[str], columns: int = 8) -> Image.Image:
    """Pictures, doubled in size, with their captions below in lines of 26 letters."""
    rows = -(-len(pictures) // columns)
    canvas = Image.new("RGB", (columns * 164, rows * 170), "white")
    pen = ImageDraw.Draw(canvas)
    for number, (picture, words) in enumerate(zip(pictures, captions, strict=True)):
        x, y = number % columns * 164 + 18, number // columns * 170 + 4
        canvas.paste(picture.resize((128, 128), Image.Resampling.BICUBIC), (x, y))
        lines = [""]
        for word in words.split():
            if len(lines[-1]) + len(word) > 26:
                lines.append("")
            lines[-1] = f"{lines[-1]} {word}".strip()
        pen.multiline_text((x - 14, y + 128), "\n".join(lines[:3]), fill="black", spacing=1)
    return canvas
