"""ImageReward: people's expert rankings, read from picture and prompt together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from PIL import Image
from pydantic import Field

from tastemaker.core.lazy_torch import no_grad, torch
from tastemaker.core.registry import SCORERS
from tastemaker.core.values import Weights
from tastemaker.scorers.checkpoints import read_weights
from tastemaker.scorers.clip import load_tokenizer
from tastemaker.scorers.pixels import prepared, processed

MEAN, STD = 0.16717362830052426, 1.0333394966054072
"""Of the rewards on the authors' own prompts, by which published scores are standardised."""

LENGTH = 35
"""Tokens of a prompt that are read, the first and the last mark included."""


@SCORERS.register("image_reward")
class ImageReward:
    """ImageReward: `score = (r(image, text) - mean) / std`, about -2 to 2, mean 0.

    `r` is a BLIP whose text layers attend to the picture, with a linear head; mean 0.167 and
    standard deviation 1.033 are the authors'. A difference of two pictures' scores for one prompt,
    times 1.033, is the log-odds that people prefer the first. It weighs whether the prompt is
    obeyed more than CLIP's cosine does, reads 35 tokens of it, and sees 224 x 224 pixels.

    The picture is scaled and cropped as CLIP's processor does it.

    Args:
        model: The published checkpoint, as a path or `owner/name/file` on the hub.
        tokenizer: Hub id or folder of BERT's uncased tokenizer.

    Raises:
        TastemakerError: Checkpoint or tokenizer cannot be found, or are those of another model.

    References:
        Xu et al. (ImageReward), arXiv 2304.05977, eq. 1; THUDM/ImageReward for the checkpoint, its
        preprocessing, mean and standard deviation.
    """

    def __init__(
        self,
        *,
        model: Annotated[
            str, Weights(), Field(description="ImageReward.pt: a path, or owner/name/file.")
        ] = "THUDM/ImageReward/ImageReward.pt",
        tokenizer: Annotated[
            str,
            Weights(tokenizer=True),
            Field(description="Hub id or folder of BERT's uncased tokenizer."),
        ] = "google-bert/bert-base-uncased",
    ) -> None:
        from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

        from tastemaker.scorers.blip import RewardNetwork

        self.network = RewardNetwork(read_weights(model), model)
        side = self.network.vision.config.image_size
        self.processor = CLIPImageProcessorPil(
            size={"shortest_edge": side}, crop_size={"height": side, "width": side}
        )
        self.tokenizer = load_tokenizer(tokenizer)

    def to(self, device: torch.device, dtype: torch.dtype) -> ImageReward:
        """Move the network, its head in float32; return the scorer."""
        self.network.to(device, dtype)
        self.network.head.float()
        return self

    @no_grad
    def __call__(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> torch.Tensor:
        """Score pictures against their prompts; see `Scorer`."""
        if not images:
            return torch.empty(0)
        return self._scored(processed(images, self.processor), prompts).cpu()

    def score_pixels(self, pixels: torch.Tensor, prompts: Sequence[str]) -> torch.Tensor:
        """Score pixels in [0, 1] against their prompts, with gradient; see `PixelScorer`."""
        return self._scored(prepared(pixels.float(), self.processor), prompts)

    def _scored(self, inputs: torch.Tensor, prompts: Sequence[str]) -> torch.Tensor:
        tokens = self.tokenizer(
            list(prompts),
            padding="max_length",
            truncation=True,
            max_length=LENGTH,
            return_tensors="pt",
        ).to(self.network.vision.device)
        like = self.network.vision.embeddings.class_embedding
        rewards = self.network(inputs.to(like), tokens["input_ids"], tokens["attention_mask"])
        return (rewards - MEAN) / STD
