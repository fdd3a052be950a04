"""Likeness to photographs of one subject, by any network that embeds pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from PIL import Image

from tastemaker.core.lazy_torch import torch
from tastemaker.scorers.embedding import EmbeddingScorer, Encoder


class Likeness(EmbeddingScorer[Encoder]):
    """`score = mean_k cos(image, photograph_k)`, in [-1, 1].

    Args:
        encoder: Network that embeds pictures.
        photographs: Photographs of one subject, in any order.
    """

    def __init__(self, encoder: Encoder, photographs: Sequence[Image.Image]) -> None:
        super().__init__(encoder)
        # One picture at a time, summed in float64: neither batch nor order shows in the mean.
        features = torch.cat([encoder.features([picture]) for picture in photographs])
        self.subject = features.double().mean(0).float()

    def to(self, device: torch.device, dtype: torch.dtype) -> Self:
        """Move the network; return the scorer."""
        self.subject = self.subject.to(device)
        return super().to(device, dtype)

    def _scored(self, embeddings: torch.Tensor) -> torch.Tensor:
        return embeddings.to(self.subject) @ self.subject
