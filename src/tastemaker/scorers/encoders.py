"""Networks that scorers compare pictures by, by name: CLIPs, and DINOv2 for pictures alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from PIL import Image

from tastemaker.core.errors import TastemakerError
from tastemaker.core.lazy_torch import F, no_grad, torch
from tastemaker.core.registry import SCORERS
from tastemaker.scorers.clip import ClipScorer
from tastemaker.scorers.embedding import Encoder
from tastemaker.scorers.pixels import prepared, processed

DINO = {"dinov2", "dinov2_with_registers"}


class DinoEncoder:
    """Pictures to embeddings of length 1: a DINOv2's class token, after the last layer norm.

    Args:
        network: A transformers `Dinov2Model`.
        processor: A transformers image processor in the manner of CLIP's.
    """

    def __init__(self, network: Any, processor: Any) -> None:
        self.network = network
        self.processor = processor

    def to(self, device: torch.device, dtype: torch.dtype) -> DinoEncoder:
        """Move the network; return the encoder."""
        self.network.to(device, dtype)
        return self

    @no_grad
    def features(self, images: Sequence[Image.Image]) -> torch.Tensor:
        """Return the embeddings of pictures, float32, shape [images, width]."""
        return self._embedded(processed(images, self.processor))

    def pixel_features(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return the embeddings of pixels in [0, 1], [images, 3, height, width], with gradient."""
        return self._embedded(prepared(pixels.float(), self.processor))

    def _embedded(self, inputs: torch.Tensor) -> torch.Tensor:
        embeddings = self.network(
            pixel_values=inputs.to(next(self.network.parameters()))
        ).pooler_output
        return F.normalize(embeddings.float(), dim=-1)


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


def image_encoder(model: str) -> Encoder:
    """Load a network for pictures: a DINOv2 by folder or hub id, or a CLIP as `clip_scorer` does.

    DINOv2 is trained on pictures alone and tells two subjects of one class better apart than CLIP,
    to which they are one word.

    Args:
        model: For instance `facebook/dinov2-small`.

    Returns:
        The encoder.

    Raises:
        TastemakerError: The model does not exist, or it is neither.

    References:
        Oquab et al. (DINOv2), arXiv 2304.07193; Radford et al. (CLIP), arXiv 2103.00020.
    """
    if model not in SCORERS and _kind(model) in DINO:
        return _dino(model)
    return clip_scorer(model)


def _kind(model: str) -> str:
    """Return the model's type in its configuration; empty where there is none to read."""
    from transformers import AutoConfig

    try:
        return str(AutoConfig.from_pretrained(model).model_type)
    except (OSError, ValueError):  # what is wrong says who loads it
        return ""


def _dino(model: str) -> DinoEncoder:
    from transformers import AutoModel

    # The processor that DINOv2 is published with, in Pillow as CLIP's is here.
    from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil

    try:
        network = AutoModel.from_pretrained(model, dtype=torch.float32).eval()
        processor = BitImageProcessorPil.from_pretrained(model)
    except (OSError, ValueError) as error:
        raise TastemakerError(f"DINOv2 {model!r} cannot be loaded: {error}") from error
    network.requires_grad_(False)
    return DinoEncoder(network, processor)
