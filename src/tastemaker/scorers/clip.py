"""Scores by a transformers `CLIPModel`: the similarity of picture and prompt."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
from PIL import Image
from pydantic import Field

from tastemaker.errors import TastemakerError
from tastemaker.registry import SCORERS
from tastemaker.scorers.pixels import prepared


@SCORERS.register("clip")
class ClipScorer:
    """`score = scale * cos(image, text)`, from any CLIP by hub id or folder.

    With a preference model of CLIP form (PickScore's weights, `nano_preference`) the scale is the
    model's own `exp(logit_scale)`, so that a difference of scores is a log-odds of preference.

    Args:
        model: Hub id or folder of a `CLIPModel` with tokenizer and image processor.
        scale: Factor on the cosine; None takes the model's `exp(logit_scale)`.

    Raises:
        TastemakerError: The model is missing or is no CLIP.

    References:
        Radford et al., arXiv 2103.00020; Kirstain et al. (PickScore), arXiv 2305.01569, eq. 1.
    """

    def __init__(
        self,
        *,
        model: Annotated[str, Field(description="Hub id or folder of a CLIPModel.")],
        scale: Annotated[
            float | None, Field(gt=0, description="Factor on the cosine; null: the model's.")
        ] = None,
    ) -> None:
        from transformers import AutoConfig, AutoTokenizer, CLIPModel

        # Pillow resizes the same everywhere; the torchvision backend is neither needed nor equal.
        from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

        local = Path(model).expanduser()
        if model.startswith((".", "/", "~")) and not local.is_dir():
            raise TastemakerError(f"scorer model {model!r} does not exist; check the folder.")
        try:
            kind = AutoConfig.from_pretrained(model).model_type
            if kind != "clip":
                raise TastemakerError(f"scorer model {model!r} is a {kind}, no CLIP.")
            self.network = CLIPModel.from_pretrained(model, dtype=torch.float32).eval()
            self.network.requires_grad_(False)
            self.tokenizer = AutoTokenizer.from_pretrained(model)
            self.processor = CLIPImageProcessorPil.from_pretrained(model)
        except (OSError, ValueError) as error:
            raise TastemakerError(
                f"scorer model {model!r} is neither a CLIP folder here nor reachable on the hub:"
                f" {error}"
            ) from error
        self.scale = float(self.network.logit_scale.exp().item()) if scale is None else scale

    def to(self, device: torch.device, dtype: torch.dtype) -> ClipScorer:
        """Move the network; return the scorer."""
        self.network.to(device, dtype)
        return self

    @torch.no_grad()
    def __call__(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> torch.Tensor:
        """Score pictures against their prompts; see `Scorer`."""
        text = self.text_features(prompts)
        return self.scale * (self.features(images) * text).sum(-1).float().cpu()

    def score_pixels(self, pixels: torch.Tensor, prompts: Sequence[str]) -> torch.Tensor:
        """Score pixels in [0, 1] against their prompts, with gradient; see `PixelScorer`.

        Equal to the scores of the pictures but for their 8 bits, which show in the resizing.
        """
        like = self.network.logit_scale
        inputs = prepared(pixels.float(), self.processor).to(like)
        image = _features(self.network.get_image_features(pixel_values=inputs))
        return self.scale * (image * self.text_features(prompts)).sum(-1).float()

    @torch.no_grad()
    def features(self, images: Sequence[Image.Image]) -> torch.Tensor:
        """Return the pictures' embeddings, of length 1, shape [images, width]."""
        pixels = self.processor(images=list(images), return_tensors="pt")["pixel_values"]
        like = self.network.logit_scale
        return _features(self.network.get_image_features(pixel_values=pixels.to(like)))

    @torch.no_grad()
    def text_features(self, prompts: Sequence[str]) -> torch.Tensor:
        """Return the prompts' embeddings, of length 1, shape [prompts, width]."""
        tokens = self.tokenizer(
            list(prompts),
            padding="max_length",
            truncation=True,
            max_length=self.network.config.text_config.max_position_embeddings,
            return_tensors="pt",
        ).to(self.network.device)
        return _features(
            self.network.get_text_features(
                input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]
            )
        )


def _features(output: Any) -> torch.Tensor:
    """Normalise features, whether transformers hands out a tensor or an output object."""
    features = output if isinstance(output, torch.Tensor) else output.pooler_output
    return features / features.norm(dim=-1, keepdim=True)
