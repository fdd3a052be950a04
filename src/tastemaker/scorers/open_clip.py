"""A CLIP in open_clip's form, as HPSv2 is published, to transformers' `CLIPModel`."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from tastemaker.core.errors import TastemakerError
from tastemaker.core.lazy_torch import torch
from tastemaker.scorers.checkpoints import filled

VISION_HEAD, TEXT_HEAD = 80, 64
"""Width of an attention head in ViT-H-14: 1280 in 16 heads, and 1024 in 16. No weight tells it."""

NAMES = {
    "logit_scale": "logit_scale",
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "visual.ln_pre.weight": "vision_model.pre_layrnorm.weight",
    "visual.ln_pre.bias": "vision_model.pre_layrnorm.bias",
    "visual.ln_post.weight": "vision_model.post_layernorm.weight",
    "visual.ln_post.bias": "vision_model.post_layernorm.bias",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "ln_final.weight": "text_model.final_layer_norm.weight",
    "ln_final.bias": "text_model.final_layer_norm.bias",
}
PROJECTIONS = {
    "visual.proj": "visual_projection.weight",
    "text_projection": "text_projection.weight",
}
INSIDE = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
BLOCK = re.compile(r"(visual\.)?transformer\.resblocks\.(\d+)\.(.+?)[._](weight|bias)")
BUFFERS = {"attn_mask"}
"""Buffers of older checkpoints that follow from the architecture."""


def clip_model(weights: Mapping[str, torch.Tensor], source: str) -> Any:
    """Make a `CLIPModel` of a ViT-H-14's weights in open_clip's names.

    Widths, depths and the picture's size are read from the weights.

    Args:
        weights: open_clip's state dict.
        source: Where it comes from, for the message.

    Returns:
        The model in float32, not trainable.

    Raises:
        TastemakerError: The weights are not those of such a model.

    References:
        Cherti et al. (OpenCLIP), arXiv 2212.07143; the names are those of the `CLIP` class of
        mlfoundations/open_clip and of transformers' `CLIPModel`.
    """
    from transformers import CLIPModel

    with _lacking(source):
        config = _configuration(weights)
    renamed = dict(pair for key in weights for pair in _renamed(key, weights[key]))
    return filled(CLIPModel, config, renamed, source)


def text_tower(weights: Mapping[str, torch.Tensor], source: str) -> Any:
    """Make the text tower of one of OpenAI's CLIPs, whose activation is QuickGELU.

    Args:
        weights: State dict in the names of OpenAI's and open_clip's `CLIP`.
        source: Where it comes from, for the message.

    Returns:
        transformers' text model in float32, not trainable; `text_projection` is not part of it.

    Raises:
        TastemakerError: The weights are not those of a CLIP.
    """
    from transformers import AutoModelForTextEncoding, CLIPTextConfig

    with _lacking(source):
        config = CLIPTextConfig(**_text_options(weights), hidden_act="quick_gelu")
    with torch.device("meta"):
        kind = type(AutoModelForTextEncoding.from_config(config))
    renamed = dict(pair for key in weights for pair in _renamed(key, weights[key]))
    own = {key: each for key, each in renamed.items() if key.startswith("text_model.")}
    return filled(kind, config, own, source)


@contextlib.contextmanager
def _lacking(source: str) -> Iterator[None]:
    try:
        yield
    except KeyError as error:
        raise TastemakerError(
            f"weights of {source!r} are not a CLIP in open_clip's form: they lack {error}."
        ) from None


def _renamed(key: str, weight: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
    """Under transformers' names; an unknown key keeps its own, and is refused with it."""
    block = BLOCK.fullmatch(key)
    if key in PROJECTIONS:
        yield PROJECTIONS[key], weight.T.contiguous()
    elif block is None:
        if key not in BUFFERS:
            yield NAMES.get(key, key), weight
    else:
        tower = "vision_model" if block[1] else "text_model"
        layer = f"{tower}.encoder.layers.{block[2]}"
        if block[3] == "attn.in_proj":  # queries, keys and values in one
            for part, each in zip("qkv", weight.chunk(3), strict=True):
                yield f"{layer}.self_attn.{part}_proj.{block[4]}", each.contiguous()
        else:
            yield f"{layer}.{INSIDE.get(block[3], block[3])}.{block[4]}", weight


def _configuration(weights: Mapping[str, torch.Tensor]) -> Any:
    from transformers import CLIPConfig

    width, _, patch, _ = weights["visual.conv1.weight"].shape
    patches = len(weights["visual.positional_embedding"]) - 1
    return CLIPConfig(
        projection_dim=weights["visual.proj"].shape[1],
        vision_config={
            "hidden_size": width,
            "intermediate_size": len(weights["visual.transformer.resblocks.0.mlp.c_fc.weight"]),
            "num_hidden_layers": _depth(weights, "visual."),
            "num_attention_heads": max(1, width // VISION_HEAD),
            "patch_size": patch,
            "image_size": patch * math.isqrt(patches),
            "hidden_act": "gelu",
        },
        text_config=_text_options(weights) | {"hidden_act": "gelu"},
    )


def _text_options(weights: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    vocabulary, width = weights["token_embedding.weight"].shape
    return {
        "hidden_size": width,
        "intermediate_size": len(weights["transformer.resblocks.0.mlp.c_fc.weight"]),
        "num_hidden_layers": _depth(weights, ""),
        "num_attention_heads": max(1, width // TEXT_HEAD),
        "max_position_embeddings": len(weights["positional_embedding"]),
        "vocab_size": vocabulary,
        "bos_token_id": vocabulary - 2,
        "eos_token_id": vocabulary - 1,  # the last one; where it first stands is what is pooled
        "pad_token_id": vocabulary - 1,
    }


def _depth(weights: Mapping[str, torch.Tensor], tower: str) -> int:
    blocks = (BLOCK.fullmatch(key) for key in weights)
    return len({block[2] for block in blocks if block and (block[1] or "") == tower})
