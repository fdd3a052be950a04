"""Scores of the picture alone, whatever its prompt: how good and how sharp it looks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from PIL import Image
from pydantic import Field

from tastemaker.core.errors import TastemakerError
from tastemaker.core.lazy_torch import np, torch
from tastemaker.core.registry import SCORERS
from tastemaker.core.values import Weights
from tastemaker.scorers.checkpoints import is_file
from tastemaker.scorers.clip import ClipForm, ClipScorer
from tastemaker.scorers.embedding import EmbeddingScorer

WORDS = {
    "quality": ("Good photo.", "Bad photo."),
    "sharpness": ("Sharp photo.", "Blurry photo."),
}

TOKENIZER = "openai/clip-vit-base-patch32"
"""Of all of OpenAI's CLIPs."""


@SCORERS.register("clip_iqa")
class ClipIQA(EmbeddingScorer[ClipForm]):
    """CLIP-IQA: the probability that a picture is the first of two opposite texts.

    `score = softmax(s cos(image, text_1), s cos(image, text_2))_1`, `s = exp(logit_scale)`, in
    [0, 1]; 0.5 where the texts fit equally well. "quality" and "sharpness" are what HG-DPO calls
    CI-Q and CI-S. The prompt of a picture does not enter.

    Scores of one model and one pair of texts compare, no others. Published values come from
    OpenAI's ResNet-50 CLIP without its positional embedding, at the picture's own size; `model` is
    a file then, `timm/resnet50_clip.openai/open_clip_model.safetensors`. A `CLIPModel` sees the
    picture resized and cropped as its image processor says.

    Args:
        model: Hub id or folder of a `CLIPModel` with tokenizer and image processor; or the weights
            of a ResNet CLIP, a path or `owner/name/file`.
        tokenizer: Of the file; a `CLIPModel` has its own.
        words: Which of the paper's pairs of texts: "quality" or "sharpness".
        pair: Two texts of your own, the good one first, in place of `words`.

    Raises:
        TastemakerError: The model is missing or is not a CLIP, or the two texts are one.

    References:
        Wang et al., Exploring CLIP for assessing the look and feel of images, arXiv 2207.12396,
        eqs. 1 and 2.
    """

    def __init__(
        self,
        *,
        model: Annotated[
            str,
            Weights(),
            Field(description="Hub id or folder of a CLIPModel, or a ResNet CLIP's file."),
        ],
        words: Annotated[
            Literal["quality", "sharpness"], Field(description="Pair of opposite texts.")
        ] = "quality",
        pair: Annotated[
            tuple[str, str] | None, Field(description="Own texts, good one first; null: words.")
        ] = None,
        tokenizer: Annotated[
            str | None,
            Weights(tokenizer=True),
            Field(description=f"CLIP's tokenizer, for a file; null: {TOKENIZER}."),
        ] = None,
    ) -> None:
        self.texts = WORDS[words] if pair is None else pair
        if self.texts[0] == self.texts[1]:
            raise TastemakerError(
                f"clip_iqa compares two texts, and both are {self.texts[0]!r}; give opposites."
            )
        if is_file(model):
            from tastemaker.scorers.resnet_clip import ResNetClip

            super().__init__(ResNetClip(model, tokenizer or TOKENIZER))
        else:
            super().__init__(ClipScorer(model=model))

    def _scored(self, embeddings: torch.Tensor) -> torch.Tensor:
        cosines = embeddings @ self.encoder.text_features(self.texts).T
        return (self.encoder.scale * cosines).softmax(1)[:, 0]


@SCORERS.register("sharpness")
class Sharpness:
    """ATHEC's sharpness: standard deviation of the grey picture's Laplacian, from 0 to 1020.

    `sharpness(image, size)`, which says what it means and when it does not compare. A measure and
    no preference: noise is sharp too. The prompt of a picture does not enter.

    Args:
        size: Shorter side in pixels at which to measure; None measures pictures as they are.

    References:
        Peng (2021), Athec: a Python library for computational aesthetic analysis.
    """

    def __init__(
        self,
        *,
        size: Annotated[
            int | None,
            Field(ge=1, description="Shorter side at which to measure; null: as the picture is."),
        ] = None,
    ) -> None:
        self.size = size

    def to(self, device: torch.device, dtype: torch.dtype) -> Sharpness:
        """Return the scorer; it has no network."""
        return self

    def __call__(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> torch.Tensor:
        """Measure pictures; the prompts are not read. See `Scorer`."""
        return torch.tensor([sharpness(image, self.size) for image in images])


def sharpness(image: Image.Image, size: int | None = None) -> float:
    """Standard deviation of the grey picture's Laplacian.

    `std(L * g)`, with `L = [[0, 1, 0], [1, -4, 1], [0, 1, 0]]` and `g` the luma of ITU-R BT.601 in
    whole steps from 0 to 255. Beyond the border the picture is mirrored about its outermost pixels,
    as OpenCV does, so that every pixel counts and a border is not an edge.

    The same scene has a lower value when it is drawn with more pixels: sets of pictures compare at
    one size only. Choose it at or below the smallest picture's, since enlarging blurs.

    Args:
        image: A picture of any size and mode, measured as RGB.
        size: Shorter side in pixels, 1 or more, to which the picture is scaled before (Lanczos);
            None measures it as it is.

    Returns:
        From 0 (flat) to 1020 (a chessboard of single black and white pixels).

    Example:
        >>> board = Image.new("L", (2, 2))
        >>> board.putdata([0, 255, 255, 0])
        >>> sharpness(board)
        1020.0

    References:
        Peng (2021), Athec: a Python library for computational aesthetic analysis of visual media
        in social science research, `attr_sharp_laplacian`.
    """
    image = image.convert("RGB")
    if size is not None:
        ratio = size / min(image.size)
        width, height = (round(side * ratio) for side in image.size)
        image = image.resize((width, height), Image.Resampling.LANCZOS)
    grey = np.pad(np.asarray(image.convert("L"), dtype=np.float64), 1, mode="reflect")
    around = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:]
    return float((around - 4 * grey[1:-1, 1:-1]).std())
