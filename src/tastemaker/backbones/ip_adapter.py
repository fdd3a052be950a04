"""IP-Adapter: a picture prompts beside the text, by cross-attention layers of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from diffusers.loaders import IPAdapterMixin
from diffusers.models.embeddings import ImageProjection
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from tastemaker.backbones.loading import unreadable
from tastemaker.backbones.places import ip_adapter_parts
from tastemaker.backbones.tokens import PROMPTS_AT_ONCE
from tastemaker.config.sections import IPAdapterConfig
from tastemaker.core.batching import batched
from tastemaker.core.errors import TastemakerError
from tastemaker.core.hub import hub_errors, hub_file
from tastemaker.core.reading import open_tensors
from tastemaker.datasets.subjects import photograph

if TYPE_CHECKING:
    from tastemaker.backbones.base import Backbone

Shapes = Mapping[str, Sequence[int]]
"""Shapes of a file's tensors, by key."""


def check_ip_adapter(config: IPAdapterConfig, backbone: Backbone) -> None:
    """Refuse an IP-Adapter that a model cannot take, by shapes and configuration alone.

    Args:
        config: Weights and image encoder.
        backbone: The model, also one without weights.

    Raises:
        TastemakerError: The family has none, a file is missing, or a width does not fit.
    """
    if not isinstance(backbone.pipeline, IPAdapterMixin):
        raise TastemakerError(
            f"ip_adapter: {backbone.name} is a {backbone.title}, for which diffusers has no"
            " IPAdapterMixin; leave it out, or take a model with a U-Net."
        )
    weights, folder = ip_adapter_parts(config)
    text, picture, hidden = _widths(weights, _shapes(_file(config, weights)))
    if text != (own := backbone.denoiser.config.cross_attention_dim):
        raise TastemakerError(
            f"ip_adapter: {weights} is {text} wide, and the text of {backbone.name} {own}: it is of"
            " another family. Take that of this one."
        )
    encoder = CLIPVisionConfig.from_pretrained(_file(config, f"{folder}/config.json").parent)
    own = encoder.hidden_size if hidden else encoder.projection_dim
    if picture != own:
        raise TastemakerError(
            f"ip_adapter: {weights} takes image embeddings of width {picture}, and the encoder in"
            f" {folder} gives {own}; name its own in ip_adapter.image_encoder_folder."
        )


def _file(config: IPAdapterConfig, name: str) -> Path:
    """Find a file of the adapter's model: here, or on the hub."""
    place = Path(config.model).expanduser()
    if place.is_dir():
        if not (place / name).is_file():
            what = "image encoder" if name.endswith(".json") else "weights"
            raise TastemakerError(
                f"ip_adapter: no {what}: {place} has no {name}; check subfolder, weight_name and"
                " image_encoder_folder."
            )
        return place / name
    if config.model.count("/") != 1 or config.model.startswith((".", "/", "~")):
        raise TastemakerError(
            f"ip_adapter: {config.model!r} does not exist: no such folder, and no hub id has that"
            " form."
        )
    return hub_file(config.model, config.model, name)


def _shapes(file: Path) -> Shapes:
    stored: Any
    with open_tensors(file) as stored:
        return {key: stored.get_slice(key).get_shape() for key in stored.keys()}  # noqa: SIM118


def _widths(name: str, shapes: Shapes) -> tuple[int, int, bool]:
    """Widths of text and of image embeddings, and True where these are an encoder's hidden states.

    Plain, Full Face and Plus differ in the network between image embeddings and attention.
    """

    def width(key: str, dimension: int) -> int:
        return int(shapes[f"image_proj.{key}"][dimension])

    kinds = {key.removeprefix("image_proj.") for key in shapes if key.startswith("image_proj.")}
    if not kinds or not any(key.startswith("ip_adapter.") for key in shapes):
        raise TastemakerError(
            f"ip_adapter: {name} has no image_proj and ip_adapter in it; it is another file."
        )
    if "proj.weight" in kinds:
        return width("norm.weight", 0), width("proj.weight", 1), False
    if "proj.3.weight" in kinds:
        return width("proj.3.weight", 0), width("proj.0.weight", 1), True
    if "latents" in kinds:
        return width("proj_out.weight", 0), width("proj_in.weight", 1), True
    raise TastemakerError(
        f"ip_adapter: {name} takes embeddings of a face recogniser (FaceID), which are not made"
        " here; take a plain, Plus or Full Face adapter."
    )


def add_ip_adapter(backbone: Backbone, config: IPAdapterConfig, scale: float) -> None:
    """Put an IP-Adapter on a model, whose denoiser then takes image embeddings in every batch.

    `attention = text + scale * picture`, two cross-attentions with one query.

    Args:
        backbone: The model, with or without LoRAs.
        config: Weights and image encoder.
        scale: Weight of the picture.

    Raises:
        TastemakerError: As of `check_ip_adapter`.

    References:
        Ye et al. (IP-Adapter), arXiv 2308.06721, equation 5.
    """
    check_ip_adapter(config, backbone)
    name, folder = ip_adapter_parts(config)
    file, place = _file(config, name), Path(config.model).expanduser()
    here = place.is_dir()
    try:
        with nullcontext() if here else hub_errors(config.model, config.model, folder):
            encoder: Any = CLIPVisionModelWithProjection.from_pretrained(
                place if here else config.model, subfolder=folder, dtype=backbone.denoiser.dtype
            )
        size = encoder.config.image_size
        backbone.pipeline.register_modules(
            image_encoder=encoder.requires_grad_(False).to(backbone.device),
            feature_extractor=CLIPImageProcessorPil(
                size={"shortest_edge": size}, crop_size={"height": size, "width": size}
            ),
        )
        backbone.pipeline.load_ip_adapter(
            str(file.parent), subfolder="", weight_name=file.name, image_encoder_folder=None
        )
    except (RuntimeError, ValueError, KeyError, OSError) as error:
        raise unreadable(f"{config.model}/{name}", error) from error
    backbone.pipeline.set_ip_adapter_scale(scale)


@torch.no_grad()
def encode_pictures(
    backbone: Backbone, files: Sequence[Path]
) -> dict[Path, tuple[torch.Tensor, torch.Tensor]]:
    """Encode pictures as the pipeline does.

    Args:
        backbone: The model; it has an IP-Adapter if there are any.
        files: Pictures.

    Returns:
        By file the image embeddings, and those of the unconditional branch: zeros, or the hidden
        states of a picture of zeros; each [1, 1, ...].

    Raises:
        TastemakerError: A picture cannot be read.
    """
    found: dict[Path, tuple[torch.Tensor, torch.Tensor]] = {}
    for part in batched(files, PROMPTS_AT_ONCE):
        (projection,) = backbone.denoiser.encoder_hid_proj.image_projection_layers
        pictures = [photograph(file) for file in part]
        given, without = backbone.pipeline.encode_image(
            pictures, backbone.device, 1, not isinstance(projection, ImageProjection)
        )
        rows = zip(given[:, None].split(1), without[:, None].split(1), strict=True)
        found |= dict(zip(part, rows, strict=True))
    return found
