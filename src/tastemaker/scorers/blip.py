"""ImageReward's network from transformers' BLIP classes, filled by the published names."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from tastemaker.core.errors import TastemakerError
from tastemaker.scorers.checkpoints import filled
from tastemaker.scorers.heads import linear_head

HEAD = 64
"""Width of an attention head in both networks: 1024 in 16 heads, and 768 in 12."""

VISION = "blip.visual_encoder."
TEXT = "blip.text_encoder."
MLP = "mlp."
POSITIONS = f"{TEXT}embeddings.position_ids"
"""Counted from 0, in older checkpoints; further names under "blip." are of its pretraining."""

NAMES = {
    "cls_token": "embeddings.class_embedding",
    "pos_embed": "embeddings.position_embedding",
    "patch_embed.proj.weight": "embeddings.patch_embedding.weight",
    "patch_embed.proj.bias": "embeddings.patch_embedding.bias",
    "norm.weight": "post_layernorm.weight",
    "norm.bias": "post_layernorm.bias",
}
INSIDE = {
    "norm1": "layer_norm1",
    "norm2": "layer_norm2",
    "attn.qkv": "self_attn.qkv",
    "attn.proj": "self_attn.projection",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}
BLOCK = re.compile(r"blocks\.(\d+)\.(.+)\.(weight|bias)")


class RewardNetwork(nn.Module):
    """A picture's tokens, read by a prompt's, to one number.

    The prompt's first token, which attended to all of the picture in every layer, goes through the
    head. Nothing is standardised yet.

    Args:
        weights: ImageReward's state dict.
        source: Where it comes from, for the message.

    Raises:
        TastemakerError: The weights are not those of such a network.

    References:
        Xu et al. (ImageReward), arXiv 2304.05977; Li et al. (BLIP), arXiv 2201.12086. The names are
        those of THUDM/ImageReward and of salesforce/BLIP.
    """

    def __init__(self, weights: Mapping[str, torch.Tensor], source: str) -> None:
        super().__init__()
        from transformers import BlipTextModel, BlipVisionModel

        vision, text, mlp = (_under(prefix, weights) for prefix in (VISION, TEXT, MLP))
        unknown = [key for key in weights if not key.startswith(("blip.", MLP))]
        if unknown:
            raise TastemakerError(f"weights of {source!r} hold {unknown[0]!r}: no ImageReward.")
        try:
            vision_config, text_config = _vision_configuration(vision), _text_configuration(text)
        except KeyError as error:
            raise TastemakerError(
                f"weights of {source!r} are not an ImageReward: they lack {error}."
            ) from None
        renamed = {_renamed(key): weight for key, weight in vision.items()}
        self.vision = filled(BlipVisionModel, vision_config, renamed, source)
        self.text = filled(BlipTextModel, text_config, text, source, add_pooling_layer=False)
        self.head = linear_head(mlp, source)

    def forward(
        self, pixels: torch.Tensor, input_ids: torch.Tensor, attention_mask: torch.Tensor
    ) -> torch.Tensor:
        """Rewards of pictures for their prompts.

        Args:
            pixels: Normalised, shape [images, 3, height, width].
            input_ids: Tokens of the prompts, shape [images, length].
            attention_mask: 1 where a token is a prompt's, 0 where it is padding.

        Returns:
            Shape [images].
        """
        # Not `pooler_output`, in which transformers normalises a second time.
        seen = self.vision(pixel_values=pixels).last_hidden_state
        read = self.text(
            input_ids=input_ids, attention_mask=attention_mask, encoder_hidden_states=seen
        ).last_hidden_state
        return self.head(read[:, 0].to(self.head[0].weight)).squeeze(-1)


def _under(prefix: str, weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {
        key.removeprefix(prefix): weight
        for key, weight in weights.items()
        if key.startswith(prefix) and key != POSITIONS
    }


def _renamed(key: str) -> str:
    """Return a vision weight's name in transformers; an unknown key is kept, and refused later."""
    block = BLOCK.fullmatch(key)
    if block is None:
        return NAMES.get(key, key)
    return f"encoder.layers.{block[1]}.{INSIDE.get(block[2], block[2])}.{block[3]}"


def _vision_configuration(weights: Mapping[str, torch.Tensor]) -> Any:
    from transformers import BlipVisionConfig

    width, _, patch, _ = weights["patch_embed.proj.weight"].shape
    return BlipVisionConfig(
        hidden_size=width,
        intermediate_size=len(weights["blocks.0.mlp.fc1.weight"]),
        num_hidden_layers=len({key.split(".")[1] for key in weights if BLOCK.fullmatch(key)}),
        num_attention_heads=max(1, width // HEAD),
        image_size=patch * math.isqrt(weights["pos_embed"].shape[1] - 1),
        patch_size=patch,
        layer_norm_eps=1e-6,  # BLIP's own; the default of transformers' class is another
    )


def _text_configuration(weights: Mapping[str, torch.Tensor]) -> Any:
    from transformers import BlipTextConfig

    vocabulary, width = weights["embeddings.word_embeddings.weight"].shape
    first = "encoder.layer.0."
    layers = {key.split(".")[2] for key in weights if key.startswith("encoder.layer.")}
    return BlipTextConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        encoder_hidden_size=weights[f"{first}crossattention.self.key.weight"].shape[1],
        intermediate_size=len(weights[f"{first}intermediate.dense.weight"]),
        num_hidden_layers=len(layers),
        num_attention_heads=max(1, width // HEAD),
        max_position_embeddings=len(weights["embeddings.position_embeddings.weight"]),
        layer_norm_eps=1e-12,
    )
