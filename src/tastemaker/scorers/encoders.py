"""Networks that scorers compare pictures by, by name: CLIPs, and DINOv2 for pictures alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from PIL import Image
from torch import nn
from torch.nn.functional import normalize

from tastemaker.core.errors import TastemakerError
from tastemaker.core.registry import SCORERS
from tastemaker.scorers.clip import ClipScorer
from tastemaker.scorers.pixels import prepared, processed

DINO = {"dinov2", "dinov2_with_registers"}


class ImageEncoder:
    """Pictures to embeddings of length 1.

    Args:
        network: What `embed` runs.
        processor: A transformers image processor in the manner of CLIP's.
        embed: From what the processor prepares, [images, 3, height, width], to embeddings of any
            length, [images, width].
    """

    def __init__(
        self, network: nn.Module, processor: Any, embed: Callable[[torch.Tensor], torch.Tensor]
    ) -> None:
        self.network = network
        self.processor = processor
        self.embed = embed

    def to(self, device: torch.device, dtype: torch.dtype) -> ImageEncoder:
        """Move the network; return the encoder."""
        self.network.to(device, dtype)
        return self

    @torch.no_grad()
    def features(self, images: Sequence[Image.Image]) -> torch.Tensor:
        """Return the embeddings of pictures, float32, shape [images, width]."""
        return self._embedded(processed(images, self.processor))

    def pixel_features(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return the embeddings of pixels in [0, 1], [images, 3, height, width], with gradient."""
        return self._embedded(prepared(pixels.float(), self.processor))

    def _embedded(self, inputs: torch.Tensor) -> torch.Tensor:
        embeddings = self.embed(inputs.to(next(self.network.parameters())))
        return normalize(embeddings.float(), dim=-1)


def clip_scorer(model: str) -> ClipScorer:
    """Load a CLIP by the name of a registered scorer, or else by folder or hub id.

    Args:
        model: For instance `nano_preference` or `openai/clip-vit-base-patch32`.

    Returns:
        The scorer, whose network, tokenizer and features others may use.

    Raises:
        TastemakerError: The model does not exist, or it is not a CLIP.
    """
    if model not in SCORERS:
        return ClipScorer(model=model)
    scorer = SCORERS.bind(model, {})()
    if not isinstance(scorer, ClipScorer):
        raise TastemakerError(
            f"scorer {model!r} is not a CLIP; name one that is, or a CLIP's folder or hub id."
        )
    return scorer


def image_encoder(model: str) -> ImageEncoder:
    """Load a network for pictures: a DINOv2 by folder or hub id, or a CLIP as `clip_scorer` does.

    DINOv2 is trained on pictures alone and tells two subjects of one class better apart than CLIP,
    to which they are one word.

    Args:
        model: For instance `facebook/dinov2-small`.

    Returns:
        The encoder. A DINOv2's embedding is that of its class token, after the last layer norm.

    Raises:
        TastemakerError: The model does not exist, or it is neither.

    References:
        Oquab et al. (DINOv2), arXiv 2304.07193; Radford et al. (CLIP), arXiv 2103.00020.
    """
    if model not in SCORERS and _kind(model) in DINO:
        return _dino(model)
    clip = clip_scorer(model)
    tower, projection = clip.network.vision_model, clip.network.visual_projection
    return ImageEncoder(
        clip.network,
        clip.processor,
        lambda inputs: projection(tower(pixel_values=inputs).pooler_output),
    )


def _kind(model: str) -> str:
    """Return the model's type in its configuration; empty where there is none to read."""
    from transformers import AutoConfig

    try:
        return str(AutoConfig.from_pretrained(model).model_type)
    except (OSError, ValueError):  # what is wrong says who loads it
        return ""


def _dino(model: str) -> ImageEncoder:
    from transformers import AutoModel

    # The processor that DINOv2 is published with, in Pillow as CLIP's is here.
    from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil

    try:
        network = AutoModel.from_pretrained(model, dtype=torch.float32).eval()
        processor = BitImageProcessorPil.from_pretrained(model)
    except (OSError, ValueError) as error:
        raise TastemakerError(f"DINOv2 {model!r} cannot be loaded: {error}") from error
    network.requires_grad_(False)
    return ImageEncoder(
        network, processor, lambda inputs: network(pixel_values=inputs).pooler_output
    )
