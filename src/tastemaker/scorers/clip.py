"""Scores by a transformers `CLIPModel`: the similarity of picture and prompt."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Self

from PIL import Image
from pydantic import Field

from tastemaker.core.errors import TastemakerError
from tastemaker.core.hub import offline_if_unreachable
from tastemaker.core.lazy_torch import no_grad, torch
from tastemaker.core.registry import SCORERS
from tastemaker.core.values import Weights
from tastemaker.scorers.pixels import prepared, processed
from tastemaker.scorers.shared_embeddings import embedded


class ClipForm:
    """`score = scale * cos(image, text)` by a network of CLIP form.

    Args:
        network: A `CLIPModel`.
        tokenizer: Its tokenizer.
        processor: Its image processor.
        scale: Factor on the cosine.
        source: Where network and processor were loaded from: scorers of one source share the
            embeddings of pictures. None shares none.
    """

    def __init__(
        self,
        network: Any,
        tokenizer: Any,
        processor: Any,
        scale: float,
        source: str | None = None,
    ) -> None:
        self.network = network
        self.tokenizer = tokenizer
        self.processor = processor
        self.scale = scale
        self.source = source

    def to(self, device: torch.device, dtype: torch.dtype) -> Self:
        """Move the network; return the scorer."""
        self.network.to(device, dtype)
        return self

    @no_grad
    def __call__(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> torch.Tensor:
        """Score pictures against their prompts; see `Scorer`."""
        if not images:
            return torch.empty(0)
        return self.scored(self.features(images), prompts).cpu()

    def score_pixels(self, pixels: torch.Tensor, prompts: Sequence[str]) -> torch.Tensor:
        """Score pixels in [0, 1] against their prompts, with gradient; see `PixelScorer`.

        Equal to the scores of the pictures but for their 8 bits, which show in the resizing.
        """
        return self.scored(self.pixel_features(pixels), prompts)

    def scored(self, image: torch.Tensor, prompts: Sequence[str]) -> torch.Tensor:
        """Scores of embeddings of pictures, shape [images, width], against their prompts."""
        return self.scale * (image * self.text_features(prompts)).sum(-1)

    @no_grad
    def features(self, images: Sequence[Image.Image]) -> torch.Tensor:
        """Return the pictures' embeddings, of length 1, shape [images, width]."""
        if self.source is None:
            return self._embedded(self._pictures(images))
        encoder = (self.source, self.network.device, self.network.dtype)
        return embedded(encoder, images, lambda: self._embedded(self._pictures(images)))

    def pixel_features(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return the embeddings of pixels in [0, 1], [images, 3, height, width], with gradient."""
        return self._embedded(self._pixels(pixels.float()))

    @no_grad
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

    def _pictures(self, images: Sequence[Image.Image]) -> torch.Tensor:
        return processed(images, self.processor)

    def _pixels(self, pixels: torch.Tensor) -> torch.Tensor:
        return prepared(pixels, self.processor)

    def _embedded(self, inputs: torch.Tensor) -> torch.Tensor:
        like = self.network.logit_scale
        return _features(self.network.get_image_features(pixel_values=inputs.to(like)))


@SCORERS.register("clip")
class ClipScorer(ClipForm):
    """`score = scale * cos(image, text)`, from any CLIP by hub id or folder.

    With a preference model of CLIP form (PickScore's weights, `nano_preference`) the scale is the
    model's own `exp(logit_scale)`, so that a difference of scores is a log-odds of preference.

    Args:
        model: Hub id or folder of a `CLIPModel` with tokenizer and image processor.
        scale: Factor on the cosine; None takes the model's `exp(logit_scale)`.

    Raises:
        TastemakerError: The model is missing or is not a CLIP.

    References:
        Radford et al., arXiv 2103.00020; Kirstain et al. (PickScore), arXiv 2305.01569, eq. 1.
    """

    def __init__(
        self,
        *,
        model: Annotated[str, Weights(), Field(description="Hub id or folder of a CLIPModel.")],
        scale: Annotated[
            float | None, Field(gt=0, description="Factor on the cosine; null: the model's.")
        ] = None,
    ) -> None:
        # Pillow resizes the same everywhere; the torchvision backend is neither needed nor equal.
        from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

        network = clip_network(model)
        tokenizer = load_tokenizer(model)
        with model_errors(model):
            processor = CLIPImageProcessorPil.from_pretrained(model)
        if scale is None:
            scale = float(network.logit_scale.exp().item())
        super().__init__(network, tokenizer, processor, scale, model)


@SCORERS.register("clip_score")
class ClipScore(ClipScorer):
    """CLIPScore: `score = scale * max(0, cos(image, text))`, 0 to 100 by default.

    100 is the scale of most tables and of torchmetrics; the paper's is 2.5, with "A photo depicts"
    before each caption (`scale=2.5 prefix="A photo depicts "`). Pictures that fit their prompt have
    20 to 35 of 100; scores of one model compare, no others. It says whether the prompt's words are
    there, and little of how good the picture is.

    Args:
        model: Hub id or folder of a `CLIPModel`; the paper's is the default.
        scale: Factor on the cosine.
        prefix: Put before every prompt.

    Raises:
        TastemakerError: The model is missing or is not a CLIP.

    References:
        Hessel et al. (CLIPScore), arXiv 2104.08718, section 3.
    """

    def __init__(
        self,
        *,
        model: Annotated[
            str, Weights(), Field(description="Hub id or folder of a CLIPModel.")
        ] = "openai/clip-vit-base-patch32",
        scale: Annotated[float, Field(gt=0, description="Factor on the cosine.")] = 100.0,
        prefix: Annotated[str, Field(description="Put before every prompt.")] = "",
    ) -> None:
        super().__init__(model=model, scale=scale)
        self.prefix = prefix

    def scored(self, image: torch.Tensor, prompts: Sequence[str]) -> torch.Tensor:
        return super().scored(image, [self.prefix + prompt for prompt in prompts]).clamp(min=0)


def clip_network(model: str) -> Any:
    """Load a `CLIPModel` in float32, not trainable.

    Args:
        model: Hub id or folder.

    Raises:
        TastemakerError: The model is missing or is not a CLIP.
    """
    from transformers import AutoConfig, CLIPModel

    local = Path(model).expanduser()
    if model.startswith((".", "/", "~")) and not local.is_dir():
        raise TastemakerError(f"scorer model {model!r} does not exist; check the folder.")
    with model_errors(model):
        kind = AutoConfig.from_pretrained(model).model_type
        if kind != "clip":
            raise TastemakerError(f"scorer model {model!r} is a {kind}, not a CLIP.")
        return CLIPModel.from_pretrained(model, dtype=torch.float32).eval().requires_grad_(False)


def load_tokenizer(name: str) -> Any:
    """Load a tokenizer.

    Args:
        name: Hub id or folder.

    Raises:
        TastemakerError: There is none.
    """
    from transformers import AutoTokenizer

    with model_errors(name, "tokenizer", "tokenizer's folder"):
        return AutoTokenizer.from_pretrained(name)


@contextlib.contextmanager
def model_errors(
    model: str, kind: str = "scorer model", what: str = "CLIP folder"
) -> Iterator[None]:
    """Turn transformers' errors for a missing model into `TastemakerError`.

    Args:
        model: Hub id or folder.
        kind: What it is for.
        what: What a folder of that name would be.

    Raises:
        TastemakerError: In place of theirs.
    """
    if not Path(model).expanduser().is_dir():
        offline_if_unreachable()
    try:
        yield
    except (OSError, ValueError) as error:
        raise TastemakerError(
            f"{kind} {model!r} is neither a {what} here nor reachable on the hub"
            f" ({str(error).strip().splitlines()[0]}); check the name, or download it where there"
            " is a network and give the folder."
        ) from error


def _features(output: Any) -> torch.Tensor:
    """Normalise features, whether transformers hands out a tensor or an output object.

    In float32: cosines in bf16, times a scale of 100, would come in steps of 0.2.
    """
    features = output if isinstance(output, torch.Tensor) else output.pooler_output
    features = features.float()
    return features / features.norm(dim=-1, keepdim=True)
