"""Scorers of CLIP form that were fitted to people's preferences: PickScore and HPSv2."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from PIL import Image
from pydantic import Field

from tastemaker.core.lazy_torch import torch
from tastemaker.core.registry import SCORERS
from tastemaker.core.values import Weights
from tastemaker.scorers.checkpoints import is_file, read_weights
from tastemaker.scorers.clip import ClipForm, ClipScorer, clip_network, load_tokenizer
from tastemaker.scorers.open_clip import clip_model
from tastemaker.scorers.pixels import MEAN, STD, normalised, padded, unit_pixels


@SCORERS.register("pickscore")
class PickScore(ClipScorer):
    """PickScore: `score = exp(logit_scale) cos(image, text)`, about 15 to 25 with its own weights.

    A difference of two pictures' scores for one prompt is the log-odds that people prefer the first
    one; scores of different prompts do not compare. Fitted to users' choices among pictures of
    SD1.5, SD2.1, Dreamlike and early SDXL, at 224 pixels: finer detail does not enter.

    Args:
        model: Hub id or folder of a `CLIPModel` with tokenizer and image processor.
        scale: Factor on the cosine; None takes the model's `exp(logit_scale)`, which is 100.

    Raises:
        TastemakerError: The model is missing or is not a CLIP.

    References:
        Kirstain et al. (PickScore), arXiv 2305.01569, eq. 1.
    """

    def __init__(
        self,
        *,
        model: Annotated[
            str, Weights(), Field(description="Hub id or folder of a CLIPModel.")
        ] = "yuvalkirstain/PickScore_v1",
        scale: Annotated[
            float | None, Field(gt=0, description="Factor on the cosine; null: the model's.")
        ] = None,
    ) -> None:
        super().__init__(model=model, scale=scale)


HpsModel = Annotated[
    str,
    Weights(),
    Field(description="The published .pt file (path or owner/name/file), or a CLIPModel."),
]
Tokenizer = Annotated[
    str,
    Weights(tokenizer=True),
    Field(description="Hub id or folder of CLIP's tokenizer, for a .pt file."),
]
HpsScale = Annotated[float, Field(gt=0, description="Factor on the cosine.")]


@SCORERS.register("hps_v2")
class HpsV2(ClipForm):
    """HPSv2: `score = scale * cos(image, text)`, about 20 to 30 of 100 with its own weights.

    On the scale of the published tables, which is 100; `scale=1` gives what `hpsv2.score` returns.
    Only scores of one prompt compare. Fitted to rankings of pictures by models from GLIDE to SD2:
    newer ones lie close together.

    The picture is scaled so that its longer side has 224 pixels, with antialiasing as torchvision
    does since 0.17, and black fills the rest of the square, as in the authors' package. Its scores
    under an older torchvision, without antialiasing, differ a little.

    Args:
        model: The published checkpoint as a path or `owner/name/file` on the hub, or hub id or
            folder of the same weights as a `CLIPModel` with its tokenizer.
        tokenizer: Hub id or folder of CLIP's tokenizer, which a checkpoint is without.
        scale: Factor on the cosine.

    Raises:
        TastemakerError: Checkpoint or tokenizer cannot be found, or are those of another model.

    References:
        Wu et al. (HPSv2), arXiv 2306.09341; tgxs002/HPSv2 for the checkpoint and its preprocessing.
    """

    def __init__(
        self,
        *,
        model: HpsModel = "xswu/HPSv2/HPS_v2_compressed.pt",
        tokenizer: Tokenizer = "openai/clip-vit-large-patch14",
        scale: HpsScale = 100.0,
    ) -> None:
        super().__init__(*_hps(model, tokenizer), None, scale)
        self.side = int(self.network.config.vision_config.image_size)

    def _pictures(self, images: Sequence[Image.Image]) -> torch.Tensor:
        return torch.cat([self._pixels(unit_pixels(image)) for image in images])

    def _pixels(self, pixels: torch.Tensor) -> torch.Tensor:
        return normalised(padded(pixels, self.side), MEAN, STD)


@SCORERS.register("hps_v2_1")
class HpsV21(HpsV2):
    """HPSv2.1: as `hps_v2`, fitted to cleaner data: `score = scale * cos(image, text)`.

    About 20 to 35 of 100 with its own weights. Its scores do not compare with HPSv2's.

    Args:
        model: Checkpoint of 2.1, or its weights as a `CLIPModel`; in the forms that `HpsV2` takes.
        tokenizer: As `HpsV2`'s.
        scale: As `HpsV2`'s.

    Raises:
        TastemakerError: As `HpsV2`.

    References:
        Wu et al. (HPSv2), arXiv 2306.09341; tgxs002/HPSv2, of which 2.1 is a later release.
    """

    def __init__(
        self,
        *,
        model: HpsModel = "xswu/HPSv2/HPS_v2.1_compressed.pt",
        tokenizer: Tokenizer = "openai/clip-vit-large-patch14",
        scale: HpsScale = 100.0,
    ) -> None:
        super().__init__(model=model, tokenizer=tokenizer, scale=scale)


def _hps(model: str, tokenizer: str) -> tuple[Any, Any]:
    """Network and tokenizer, from a checkpoint or from a CLIP's folder, which has its own."""
    if is_file(model):
        return clip_model(read_weights(model), model), load_tokenizer(tokenizer)
    return clip_network(model), load_tokenizer(model)
