"""Autoencoder between pixels and latents, in the units that the denoiser sees."""

from __future__ import annotations

from typing import Any

import torch
from diffusers.image_processor import VaeImageProcessor
from PIL import Image

from tastemaker.core.errors import TastemakerError


class Autoencoder:
    """A pipeline's VAE; it is never trained, rewards are propagated through it.

    It stays in float32 if its own configuration says that float16 overflows.

    Args:
        name: Of the model, for messages.
        vae: diffusers' `AutoencoderKL`.
    """

    def __init__(self, name: str, vae: Any) -> None:
        self.name = name
        self.network = vae.requires_grad_(False)
        if vae.dtype == torch.float16 and vae.config.force_upcast:
            vae.to(torch.float32)

    @torch.no_grad()
    def encode(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Encode images to the posterior.

        Args:
            pixels: [images, 3, height, width], in [-1, 1].

        Returns:
            Mean and standard deviation, `(z - shift) * scale`, each [images, channels, h, w].

        Raises:
            TastemakerError: The posterior is not finite.
        """
        posterior = self.network.encode(self._moved(pixels)).latent_dist
        scale, shift = self._units(posterior.mean)
        mean, std = posterior.mean, posterior.std * scale
        mean = (mean if shift is None else mean - shift) * scale
        self._check(mean, "latents")
        return mean, std

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Decode latents, with a graph where they carry one.

        Args:
            latents: [images, channels, h, w].

        Returns:
            [images, 3, height, width], about [-1, 1].

        Raises:
            TastemakerError: The pixels are not finite.
        """
        latents = self._moved(latents)
        scale, shift = self._units(latents)
        latents = latents / scale
        pixels: torch.Tensor = self.network.decode(
            latents if shift is None else latents + shift, return_dict=False
        )[0]
        if not pixels.requires_grad:  # a training has guards of its own
            self._check(pixels, "pixels")
        return pixels

    @torch.no_grad()
    def decode_images(self, latents: torch.Tensor) -> list[Image.Image]:
        """Decode latents to images."""
        return to_images(self.decode(latents))

    def decode_pixels(self, latents: torch.Tensor) -> torch.Tensor:
        """Decode latents to the pixels of `decode_images`, with gradient.

        Clipped, so that the gradient is that of the image which is judged: beyond black or white
        it is zero.

        Args:
            latents: [images, channels, h, w].

        Returns:
            Float32, shape [images, 3, height, width], in [0, 1]; not rounded to 8 bits.
        """
        return (self.decode(latents).float() / 2 + 0.5).clamp(0, 1)

    def _moved(self, values: torch.Tensor) -> torch.Tensor:
        return values.to(self.network.device, self.network.dtype)

    def _units(self, like: torch.Tensor) -> tuple[Any, Any]:
        """Scale and shift: one number each, or one per channel; the shift may be None."""
        config = self.network.config
        if config.latents_mean is None or config.latents_std is None:
            return config.scaling_factor, config.shift_factor
        mean, std = (
            torch.tensor(each).view(1, -1, 1, 1).to(like)
            for each in (config.latents_mean, config.latents_std)
        )
        return config.scaling_factor / std, mean

    def _check(self, values: torch.Tensor, what: str) -> None:
        if values.is_meta or torch.isfinite(values).all():
            return
        if self.network.dtype == torch.float16:
            raise TastemakerError(
                f"the VAE of {self.name} overflows in fp16: its {what} are not finite. Take"
                " dtype=bf16 or fp32, or a VAE made for fp16."
            )
        raise TastemakerError(
            f"the VAE of {self.name} made {what} that are not finite: its input or its weights are"
            " broken. Check the pool's latents, or load the model again."
        )


def to_images(pixels: torch.Tensor) -> list[Image.Image]:
    """Turn decoded pixels, [images, 3, height, width] in about [-1, 1], into images."""
    return VaeImageProcessor().postprocess(pixels, "pil")
