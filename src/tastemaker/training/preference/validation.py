"""Sheets of fixed prompts and seeds, drawn while training goes on."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image

from tastemaker.backbones import Backbone, SamplingBatch, stack
from tastemaker.config.training import ValidationConfig
from tastemaker.core.seeding import keyed_seed
from tastemaker.storage.files import atomic


class ValidationSheets:
    """Draws one image a prompt, always from the same seeds.

    Args:
        config: Prompts and sampling options.
        backbone: The model with its VAE and text encoder, before they are released.
        folder: Where `step-00100.png` files go.
        seed: The run's seed.
    """

    def __init__(
        self, config: ValidationConfig, backbone: Backbone, folder: Path, seed: int
    ) -> None:
        self.config = config
        self.backbone = backbone
        self.folder = folder
        self.seeds = [keyed_seed(seed, "validation", prompt) for prompt in config.prompts]

    @torch.no_grad()
    def draw(self, step: int, *, save: bool = True) -> Image.Image:
        """Draw and save the sheet of a step, images side by side in the order of the prompts.

        Args:
            step: Optimizer steps done.
            save: Whether this process writes it.

        Returns:
            The sheet.
        """
        denoiser = self.backbone.denoiser.eval()
        prompts = self.config.prompts
        drawing = SamplingBatch(
            self.backbone.encode_prompts(prompts),
            stack([self.backbone.encode_negative("")] * len(prompts)),
            self.seeds,
            num_inference_steps=self.config.num_inference_steps,
            guidance_scale=self.backbone.guidance_scale(self.config.guidance_scale),
        )
        latents = self.backbone.sample(drawing)
        denoiser.train()
        images = self.backbone.vae.decode_images(latents)
        width, height = images[0].size
        sheet = Image.new("RGB", (width * len(images), height))
        for i, image in enumerate(images):
            sheet.paste(image, (i * width, 0))
        if save:
            with atomic(self.folder / f"step-{step:05d}.png") as temporary:
                sheet.save(temporary, format="PNG")
        return sheet
