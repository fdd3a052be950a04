"""Peak memory of `tastemaker generate` over the number of prompts, with networks of a few weights.

    python benchmarks/memory/prompts.py WORK [NUMBER ...]

Each row is the command in a process of its own: one step, one image of 16 pixels per prompt.
Prints a table in Markdown. 100,000 prompts take some minutes.
"""

import argparse
import subprocess
import sys
from pathlib import Path

from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from tastemaker.backbones.loading import resolve

NUMBERS = (100, 1_000, 10_000, 100_000)
OPTIONS = (
    "num_candidates=1",
    "num_inference_steps=1",
    "guidance_scale=1",
    "batch_size=64",
    "keep_latents=false",
    "device=cpu",
)


def tiny(folder: Path) -> Path:
    """A Stable Diffusion with `nano`'s tokenizer, and 77 x 64 numbers per prompt."""
    tokenizer = CLIPTokenizer.from_pretrained(Path(resolve("nano")) / "tokenizer")
    text = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
    )
    blocks = {"block_out_channels": (8,), "layers_per_block": 1, "norm_num_groups": 4}
    pipeline = StableDiffusionPipeline(
        vae=AutoencoderKL(**blocks, sample_size=16),
        text_encoder=CLIPTextModel(text),
        tokenizer=tokenizer,
        unet=UNet2DConditionModel(
            **blocks,
            sample_size=16,
            down_block_types=("CrossAttnDownBlock2D",),
            up_block_types=("CrossAttnUpBlock2D",),
            cross_attention_dim=64,
            attention_head_dim=2,
        ),
        scheduler=DDIMScheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder)
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path, help="folder for model, prompts and pools")
    parser.add_argument("numbers", type=int, nargs="*", default=NUMBERS)
    given = parser.parse_args()
    work: Path = given.work
    model = tiny(work / "model")
    print("| prompts | generate took |\n|---|---|")
    for number in given.numbers:
        prompts = work / f"{number}.txt"
        prompts.write_text("".join(f"a small cat {i}\n" for i in range(number)), encoding="utf-8")
        words = ("generate", str(work / str(number)), f"model={model}", f"prompts={prompts}")
        measure = Path(__file__).parent / "measure.py"
        done = subprocess.run(
            [sys.executable, str(measure), *words, *OPTIONS],
            capture_output=True,
            text=True,
            check=True,
        )
        print(f"| {number:,} | {done.stdout.strip().splitlines()[-1]} |", flush=True)


if __name__ == "__main__":
    main()
