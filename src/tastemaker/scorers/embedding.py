"""Scorers of the picture alone, from its embedding, independent of the prompt."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Generic, Protocol, Self, TypeVar

from PIL import Image

from tastemaker.core.lazy_torch import no_grad, torch


class Encoder(Protocol):
    """Pictures to embeddings of length 1."""

    def to(self, device: torch.device, dtype: torch.dtype) -> Encoder:
        """Move the network; return the encoder."""
        ...

    def features(self, images: Sequence[Image.Image]) -> torch.Tensor:
        """Return the embeddings of pictures, float32, shape [images, width]."""
        ...

    def pixel_features(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return the embeddings of pixels in [0, 1], [images, 3, height, width], with gradient."""
        ...


AnyEncoder = TypeVar("AnyEncoder", bound=Encoder)


class EmbeddingScorer(ABC, Generic[AnyEncoder]):
    """`score = f(image)`, with `image` an embedding of length 1; `_scored` is `f`.

    Args:
        encoder: Network that embeds pictures.
    """

    def __init__(self, encoder: AnyEncoder) -> None:
        self.encoder = encoder

    def to(self, device: torch.device, dtype: torch.dtype) -> Self:
        """Move the network; return the scorer."""
        self.encoder.to(device, dtype)
        return self

    @no_grad
    def __call__(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> torch.Tensor:
        """Score pictures; the prompts are not read. See `Scorer`."""
        if not images:
            return torch.empty(0)
        return self._scored(self.encoder.features(images)).cpu()

    def score_pixels(self, pixels: torch.Tensor, prompts: Sequence[str]) -> torch.Tensor:
        """Score pixels in [0, 1], with gradient; the prompts are not read. See `PixelScorer`."""
        return self._scored(self.encoder.pixel_features(pixels))

    @abstractmethod
    def _scored(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Return scores of embeddings of pictures, shape [images, width]."""
