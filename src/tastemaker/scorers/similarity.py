"""The two scores of a personalised model: fidelity to its subject, and to the prompt."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Literal

from PIL import Image
from pydantic import Field

from tastemaker.core.errors import TastemakerError
from tastemaker.core.lazy_torch import no_grad, torch
from tastemaker.core.registry import SCORERS
from tastemaker.core.templates import takes_an
from tastemaker.core.values import Weights
from tastemaker.datasets.subjects import photographs
from tastemaker.scorers.base import Subject
from tastemaker.scorers.encoders import clip_scorer, image_encoder
from tastemaker.scorers.likeness import Likeness

Mode = Literal["class", "removed"]


@SCORERS.register("image_similarity")
class ImageSimilarity(Likeness):
    """IS: the mean cosine of a picture's embedding to those of a subject's photographs.

    `score = mean_k cos(image, photograph_k)`, in [-1, 1]; photographs of one subject among
    themselves say what is high. The prompt of a picture does not enter, nor does the order of the
    photographs. Scores compare where embeddings and photographs are the same.

    It rises as well when a photograph is copied, background and all: weigh it against
    `text_similarity`.

    Args:
        images: Folder of the subject's photographs.
        model: Name of a registered scorer in CLIP form, or folder or hub id of a `CLIPModel` or a
            DINOv2.

    Raises:
        TastemakerError: No such folder, no photograph in it, one that cannot be read; the model is
            missing or is neither a CLIP nor a DINOv2.

    References:
        CLIP-I and DINO of Ruiz et al. (DreamBooth), arXiv 2208.12242; IS of DreamBoothDPO,
        arXiv 2505.20975.
    """

    def __init__(
        self,
        *,
        images: Annotated[
            str, Subject(), Field(description="Folder of the subject's photographs.")
        ],
        model: Annotated[
            str,
            Weights(),
            Field(description="Scorer in CLIP form, or folder or hub id of a CLIP or DINOv2."),
        ],
    ) -> None:
        pictures = photographs(images)
        super().__init__(image_encoder(model), pictures)


@SCORERS.register("text_similarity")
class TextSimilarity:
    """TS: the cosine of a picture to its prompt, in which the subject is named by its class.

    `score = cos(image, text)`, in [-1, 1]. A text encoder knows no rare token: the subject's phrase
    ("sks dog") is replaced by the class's name ("dog") or removed, with its article mended. A
    prompt without the phrase, or with a rare word of it left, is refused: none is ever encoded.

    Args:
        model: Name of a registered scorer in CLIP form, or folder or hub id of a `CLIPModel`.
        subject: The phrase in the prompts; case does not matter.
        class_name: What the subject is, in words that the text encoder knows.
        mode: "class" replaces the phrase by the class's name, "removed" leaves it out.

    Raises:
        TastemakerError: The phrase has no word of its own beside the class's name; the model is
            missing or is not a CLIP. On use: a prompt that is refused.

    References:
        CLIP-T of Ruiz et al. (DreamBooth), arXiv 2208.12242; TS of DreamBoothDPO,
        arXiv 2505.20975.
    """

    def __init__(
        self,
        *,
        model: Annotated[
            str,
            Weights(),
            Field(description="Scorer in CLIP form, or folder or hub id of a CLIPModel."),
        ],
        subject: Annotated[
            str, Field(min_length=1, description="The phrase in the prompts: sks dog.")
        ],
        class_name: Annotated[str, Field(pattern=r"\S", description="Class of the subject: dog.")],
        mode: Annotated[
            Mode, Field(description="Replace the phrase by the class's name, or remove it.")
        ] = "class",
    ) -> None:
        if not rare_words(subject, class_name):
            raise TastemakerError(
                f"subject {subject!r} has no word that is not in class_name {class_name!r}; give"
                " the phrase in the prompts, rare token included."
            )
        self.clip = clip_scorer(model)
        self.clip.scale = 1.0
        self.subject, self.class_name, self.mode = subject, class_name.strip(), mode

    def to(self, device: torch.device, dtype: torch.dtype) -> TextSimilarity:
        """Move the network; return the scorer."""
        self.clip.to(device, dtype)
        return self

    @no_grad
    def __call__(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> torch.Tensor:
        """Score pictures against their prompts; see `Scorer`."""
        # Cosines in bf16 would come in steps as large as the differences that pairs are made of.
        text = self.clip.text_features(self._plain(prompts)).float()
        return (self.clip.features(images).float() * text).sum(-1).cpu()

    def score_pixels(self, pixels: torch.Tensor, prompts: Sequence[str]) -> torch.Tensor:
        """Score pixels in [0, 1] against their prompts, with gradient; see `PixelScorer`."""
        return self.clip.score_pixels(pixels, self._plain(prompts))

    def _plain(self, prompts: Sequence[str]) -> list[str]:
        return [plain(prompt, self.subject, self.class_name, self.mode) for prompt in prompts]


def plain(prompt: str, subject: str, class_name: str, mode: Mode = "class") -> str:
    """Return a prompt in words that any text encoder knows.

    Args:
        prompt: It holds the subject's phrase once or more.
        subject: The phrase, rare token included.
        class_name: What the subject is.
        mode: "class" puts the class's name in the phrase's place, "removed" nothing.

    Returns:
        The prompt without the phrase; an article before it fits the class's name, or is gone too.

    Raises:
        TastemakerError: The phrase is not in the prompt, a rare word of it is left, or nothing is.

    Example:
        >>> plain("a sks owl on a roof, at night", "sks owl", "owl")
        'an owl on a roof, at night'
        >>> plain("a sks owl on a roof, at night", "sks owl", "owl", "removed")
        'on a roof, at night'
    """
    phrase = r"\s+".join(re.escape(word) for word in subject.split())
    words, number = re.subn(
        rf"(?:\b(an?|the)\s+)?{_whole(phrase)}",
        lambda found: _with_article(found[1] or "", class_name) if mode == "class" else "",
        prompt,
        flags=re.IGNORECASE,
    )
    if not number:
        raise TastemakerError(
            f"prompt {prompt!r} does not hold the subject {subject!r}; set `subject` to the phrase"
            " in the prompts."
        )
    left = [
        word
        for word in rare_words(subject, class_name)
        if re.search(_whole(re.escape(word)), words, re.IGNORECASE)
    ]
    if left:
        raise TastemakerError(
            f"prompt {prompt!r} holds {left[0]!r} outside the subject {subject!r}: the text encoder"
            " would read a token that it does not know. Rephrase the prompt."
        )
    if mode == "class":
        return words
    words = re.sub(r"\s+(?=[,.;:!?])", "", " ".join(words.split())).strip(" ,.;:!?")
    if not words:
        raise TastemakerError(
            f"prompt {prompt!r} is empty without its subject; use mode 'class' for it."
        )
    return words


def rare_words(subject: str, class_name: str) -> list[str]:
    """Words of a subject's phrase that are not in its class's name, in lower case.

    Example:
        >>> rare_words("sks red Dog", "dog")
        ['sks', 'red']
    """
    known = class_name.lower().split()
    return [word for word in subject.lower().split() if word not in known]


def _whole(pattern: str) -> str:
    """Match the pattern between characters that are neither letter nor digit."""
    return rf"(?<![^\W_]){pattern}(?![^\W_])"


def _with_article(article: str, noun: str) -> str:
    if article.lower() in {"a", "an"}:
        article = article[0] + ("n" if takes_an(noun) else "")
    return f"{article} {noun}" if article else noun
