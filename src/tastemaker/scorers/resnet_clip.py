"""OpenAI's CLIP with a ResNet, read without positional embedding: pictures of any size."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

from tastemaker.core.errors import TastemakerError
from tastemaker.scorers.checkpoints import read_weights
from tastemaker.scorers.clip import ClipForm, load_tokenizer
from tastemaker.scorers.open_clip import text_tower
from tastemaker.scorers.pixels import MEAN, STD, normalised, unit_pixels

HEAD = 64
"""Width of an attention head of the last pooling."""

LEAST = 32
"""Pixels of a side: the tower halves it five times."""


class ResNetClip(ClipForm):
    """Pictures at their own size to embeddings, by a ResNet CLIP without positional embedding.

    Args:
        weights: File in the names of OpenAI's and open_clip's `CLIP`: a path, or `owner/name/file`.
        tokenizer: Hub id or folder of CLIP's tokenizer.

    Raises:
        TastemakerError: A file is missing or of another model.

    References:
        Radford et al. (CLIP), arXiv 2103.00020, section 2.4; Wang et al. (CLIP-IQA), arXiv
        2207.12396, section 3.1, for the embedding that is left out.
    """

    def __init__(self, weights: str, tokenizer: str) -> None:
        network = _Network(read_weights(weights), weights)
        scale = float(network.logit_scale.exp())
        super().__init__(network, load_tokenizer(tokenizer), None, scale)

    @torch.no_grad()
    def features(self, images: Sequence[Image.Image]) -> torch.Tensor:
        return torch.cat([self.pixel_features(unit_pixels(image)) for image in images])

    def _pixels(self, pixels: torch.Tensor) -> torch.Tensor:
        if min(pixels.shape[-2:]) < LEAST:
            raise TastemakerError(
                f"a picture of {pixels.shape[-1]} x {pixels.shape[-2]} pixels is too small for a"
                f" ResNet CLIP, which takes sides of {LEAST} or more; score larger ones."
            )
        return normalised(pixels, MEAN, STD)


class _Network(nn.Module):
    """Image and text tower under the names that `ClipForm` calls."""

    def __init__(self, weights: Mapping[str, torch.Tensor], source: str) -> None:
        super().__init__()
        self.text = text_tower(weights, source)
        self.config = _Config(self.text.config)
        try:
            self.visual = _tower(weights)
            self.projection = nn.Parameter(weights["text_projection"].float())
        except (KeyError, RuntimeError) as error:
            raise TastemakerError(
                f"weights of {source!r} are not those of a CLIP with a ResNet, such as"
                f" timm/resnet50_clip.openai/open_clip_model.safetensors: {error}."
            ) from error
        self.logit_scale = nn.Parameter(weights["logit_scale"].float())
        self.eval().requires_grad_(False)

    @property
    def device(self) -> torch.device:
        return self.logit_scale.device

    def get_image_features(self, pixel_values: torch.Tensor) -> torch.Tensor:
        embeddings: torch.Tensor = self.visual(pixel_values)
        return embeddings

    def get_text_features(self, **tokens: torch.Tensor) -> torch.Tensor:
        embeddings: torch.Tensor = self.text(**tokens).pooler_output @ self.projection
        return embeddings


class _Config:
    def __init__(self, text_config: Any) -> None:
        self.text_config = text_config


def _tower(weights: Mapping[str, torch.Tensor]) -> nn.Module:
    """Make the image tower; widths and depths are read from the weights."""
    own = {
        key.removeprefix("visual."): value.float()
        for key, value in weights.items()
        if key.startswith("visual.") and not key.endswith(".positional_embedding")
    }
    blocks = {match[0] for key in own if (match := re.match(r"layer\d\.\d+\.", key))}
    depths = [
        sum(block.startswith(f"layer{number}.") for block in blocks) for number in range(1, 5)
    ]
    tower = _Tower(depths, len(own["conv3.weight"]), len(own["attnpool.c_proj.weight"]))
    tower.load_state_dict(own)
    return tower


class _Tower(nn.Module):
    """Three convolutions, four groups of bottlenecks, and pooling by attention."""

    def __init__(self, depths: Sequence[int], width: int, output: int) -> None:
        super().__init__()
        half = width // 2
        self.conv1 = nn.Conv2d(3, half, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(half)
        self.conv2 = nn.Conv2d(half, half, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(half)
        self.conv3 = nn.Conv2d(half, width, 3, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(width)
        self.groups, inputs = [], width
        for number, depth in enumerate(depths):
            inner = width * 2**number
            group = [_Bottleneck(inputs, inner, stride=2 if number else 1)]
            group += [_Bottleneck(4 * inner, inner, stride=1) for _ in range(depth - 1)]
            self.groups.append(f"layer{number + 1}")
            self.add_module(self.groups[-1], nn.Sequential(*group))
            inputs = 4 * inner
        self.attnpool = _AttentionPool(inputs, output)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.bn1(self.conv1(pixels)))
        x = F.relu(self.bn2(self.conv2(x)))
        x = F.avg_pool2d(F.relu(self.bn3(self.conv3(x))), 2)
        for group in self.groups:
            x = self.get_submodule(group)(x)
        return self.attnpool(x)


class _Bottleneck(nn.Module):
    """Residual block; strides are average pooling, in the branch before its last convolution."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.pool = nn.AvgPool2d(stride)
        self.downsample = (
            nn.Identity()
            if inputs == 4 * width and stride == 1
            else nn.Sequential(
                nn.Conv2d(inputs, 4 * width, 1, bias=False), nn.BatchNorm2d(4 * width)
            )
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        branch = F.relu(self.bn1(self.conv1(x)))
        branch = self.pool(F.relu(self.bn2(self.conv2(branch))))
        return F.relu(self.bn3(self.conv3(branch)) + self.downsample(self.pool(x)))


class _AttentionPool(nn.Module):
    """The mean asks itself and all places: one attention, whose answer is the embedding."""

    def __init__(self, width: int, output: int) -> None:
        super().__init__()
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(width, width) for _ in range(3))
        self.c_proj = nn.Linear(width, output)
        self.heads = max(1, width // HEAD)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        places = x.flatten(2).mT
        mean = places.mean(1, keepdim=True)
        places = torch.cat([mean, places], 1)
        q, k, v = (
            projection(values).unflatten(2, (self.heads, -1)).transpose(1, 2)
            for projection, values in (
                (self.q_proj, mean),
                (self.k_proj, places),
                (self.v_proj, places),
            )
        )
        attended = F.scaled_dot_product_attention(q, k, v)
        return self.c_proj(attended.transpose(1, 2).flatten(2))[:, 0]
