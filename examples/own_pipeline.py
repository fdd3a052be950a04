"""Train a loaded diffusers pipeline on a `datasets.Dataset` of image pairs."""

import torch
from diffusers import DiffusionPipeline
from PIL import Image, ImageStat

import datasets
import tastemaker as tm

PROMPTS = ["a red circle on a blue background", "a green square on a white background"]


def colourfulness(image: Image.Image) -> float:
    """Mean saturation."""
    return ImageStat.Stat(image.convert("HSV")).mean[1]


def main(output: str = "more-colour", max_steps: int = 50) -> None:
    """Draw pairs, prefer the more colourful image of each, and train on them."""
    nano = tm.MODELS.entry("nano")()
    pipeline = DiffusionPipeline.from_pretrained(nano, torch_dtype=torch.float32)
    rows = []
    for prompt in PROMPTS:
        images = pipeline(prompt, num_images_per_prompt=2, num_inference_steps=10).images
        rejected, chosen = sorted(images, key=colourfulness)
        rows.append({"prompt": prompt, "chosen": chosen, "rejected": rejected})
    trainer = tm.PreferenceTrainer(
        pipeline,
        datasets.Dataset.from_list(rows),
        output=output,
        max_steps=max_steps,
        batch_size=2,
        learning_rate=1e-3,
        report_to=None,
    )
    trainer.train()
    pipeline(PROMPTS[0], num_inference_steps=10).images[0].save(f"{output}/sample.png")

    again = DiffusionPipeline.from_pretrained(nano, torch_dtype=torch.float32)
    again.load_lora_weights(output)


if __name__ == "__main__":
    main()
