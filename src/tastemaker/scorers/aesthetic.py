"""LAION's aesthetic predictors: how beautiful people would call a picture, whatever its prompt."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field

from tastemaker.core.errors import TastemakerError
from tastemaker.core.lazy_torch import torch
from tastemaker.core.registry import SCORERS
from tastemaker.core.values import Weights
from tastemaker.scorers.checkpoints import read_weights
from tastemaker.scorers.clip import ClipScorer
from tastemaker.scorers.embedding import EmbeddingScorer
from tastemaker.scorers.encoders import clip_scorer
from tastemaker.scorers.heads import linear_head


@SCORERS.register("aesthetic")
class Aesthetic(EmbeddingScorer[ClipScorer]):
    """LAION aesthetic: `score = head(image / |image|)`, of 1 to 10; most pictures have 4 to 7.

    A head on CLIP's embedding of the picture, fitted to ratings from 1 to 10. The default is the
    "improved" predictor (v2, five layers, for ViT-L/14: `sac+logos+ava1-l14-linearMSE.pth`); the
    linear heads `sa_0_4_vit_l_14_linear.pth` and `sa_0_4_vit_b_32_linear.pth` load as well, the
    latter with `model=openai/clip-vit-base-patch32`. Scores of one head compare, no others. The
    prompt does not enter: where it is trained on alone, nothing keeps pictures to their prompts.
    Heads with activations between their layers (`...reluMSE.pth`) have the same names and are not
    for this.

    Args:
        model: Hub id or folder of the `CLIPModel` that the head was fitted on, or the name of a
            registered scorer in CLIP form.
        head: File of the head, as a path or `owner/name/file` on the hub.

    Raises:
        TastemakerError: Model or head cannot be found, or the head is for embeddings of another
            width.

    References:
        Schuhmann et al. (LAION-5B), arXiv 2210.08402; for the heads LAION-AI/aesthetic-predictor
        and christophschuhmann/improved-aesthetic-predictor.
    """

    def __init__(
        self,
        *,
        model: Annotated[
            str, Weights(), Field(description="Hub id or folder of the head's CLIPModel.")
        ] = "openai/clip-vit-large-patch14",
        head: Annotated[
            str, Weights(), Field(description="The head's file: a path, or owner/name/file.")
        ] = "trl-lib/ddpo-aesthetic-predictor/aesthetic-model.pth",
    ) -> None:
        self.head = linear_head(read_weights(head), head)
        super().__init__(clip_scorer(model))
        width = self.encoder.network.config.projection_dim
        if self.head[0].in_features != width:
            raise TastemakerError(
                f"head {head!r} is for embeddings of {self.head[0].in_features} numbers, and"
                f" {model!r} gives {width}; name the CLIP that the head was fitted on."
            )

    def to(self, device: torch.device, dtype: torch.dtype) -> Self:
        """Move the network, and the head in float32; return the scorer."""
        self.head.to(device)
        return super().to(device, dtype)

    def _scored(self, embeddings: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.head(embeddings)
        return scores.squeeze(-1)
