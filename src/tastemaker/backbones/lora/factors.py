"""The tensors of a LoRA file by layer, whatever tool wrote it; other kinds of adapters by name.

A key is a layer's name and an ending. Names differ more than endings: `dialects.py` knows them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch

from tastemaker.core.errors import TastemakerError

KEY = re.compile(
    r"(?P<name>.+?)(?:\.lora_|\.lora\.|\.lora_linear_layer\.|_lora\.)"
    r"(?P<factor>A|B|down|up|mid)(?:\.\w+)?\.(?P<kind>weight|bias)"
)
"""A factor's key; PEFT may put the adapter's name before `weight`."""

FACTORS = {"A": "down", "B": "up"}

OTHER_KINDS = {
    r"dora_scale|lora_magnitude_vector": "DoRA",
    r"\.hada_": "LoHa",
    r"\.lokr_": "LoKr",
    r"\.oft_|\.boft_": "OFT",
    r"\.on_input$|\.ia3_l": "IA3",
    r"\.vera_lambda": "VeRA",
    r"\.lora_embedding_": "LoRA on embeddings",
    r"query_norm\.scale$|key_norm\.scale$": "control LoRA of FLUX.1 (Canny, Depth)",
    r"\.lora_(up|down|mid|A|B)(\.\w+)?\.bias$|\.lora\.(up|down)\.bias$": "LoRA with biases",
    r"\.diff(_b)?$|\.w_norm$|\.b_norm$": "LoRA with whole weights (diff)",
    r"emb_params|^clip_[lg]$|string_to_param": "learned word (textual inversion)",
    r"^image_proj|^ip_adapter|\.to_[kv]_ip\.": "IP-Adapter",
}
"""Patterns in the keys of other kinds of adapters."""

ADDED = re.compile(r"\.bias$|\.diff(_b)?$|\.w_norm$|\.b_norm$")
"""Keys of what is added to a weight: where it is zero it says nothing."""


@dataclass
class Factors:
    """Tensors of a file for one layer.

    Attributes:
        down: First factor, [rank, inputs...].
        up: Second factor, [outputs, rank, ...].
        mid: Of a Tucker decomposition, [rank, rank, k, k].
        alpha: Scale times rank, if the file gives it.
        keys: Of these tensors.
    """

    down: torch.Tensor | None = None
    up: torch.Tensor | None = None
    mid: torch.Tensor | None = None
    alpha: float | None = None
    keys: list[str] = field(default_factory=list)

    def product(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return `down` and `up`, a Tucker decomposition's middle multiplied into `down`."""
        assert self.down is not None
        assert self.up is not None
        if self.mid is None:
            return self.down, self.up
        down = self.down.float().flatten(1)
        return torch.einsum("or...,ri->oi...", self.mid.float(), down), self.up


def read_factors(
    tensors: Mapping[str, torch.Tensor], file: Path
) -> tuple[dict[str, Factors], list[str]]:
    """Sort a file's tensors by layer.

    Args:
        tensors: By key, in any tool's form.
        file: Their file, for messages.

    Returns:
        Both factors and alpha by the name that the file gives a layer; the keys that are neither.

    Raises:
        TastemakerError: The file is another kind of adapter, or a factor is missing.
    """
    found: dict[str, Factors] = {}
    unknown = []
    for key, value in tensors.items():
        match = KEY.fullmatch(key)
        if match and match["kind"] == "weight":
            layer = found.setdefault(match["name"], Factors())
            setattr(layer, FACTORS.get(match["factor"], match["factor"]), value)
        elif key.endswith(".alpha") and value.numel() == 1:
            layer = found.setdefault(key.removesuffix(".alpha").removesuffix("_lora"), Factors())
            layer.alpha = float(value)
        elif ADDED.search(key) and not value.float().any():
            continue
        else:
            _refuse_kind(key, file)
            unknown.append(key)
            continue
        layer.keys.append(key)
    for name, layer in found.items():
        _check(name, layer, file)
    return found, unknown


def _check(name: str, layer: Factors, file: Path) -> None:
    if layer.down is None or layer.up is None:
        other = "first factor (lora_down, lora_A)" if layer.down is None else "second factor"
        raise TastemakerError(
            f"{file}: {name} has {layer.keys[0]} but no {other}; the file is not whole. Save it"
            " again, or download it again."
        )
    rank = layer.down.shape[0] if layer.down.ndim > 1 else 0
    if not rank or layer.up.ndim < 2 or layer.up.shape[1] != rank or not layer.up.numel():
        raise TastemakerError(
            f"{file}: {name} has down {tuple(layer.down.shape)} and up {tuple(layer.up.shape)},"
            " which are not factors of one update; the file is damaged."
        )
    if layer.mid is not None and layer.mid.shape[:2] != (rank, rank):
        raise TastemakerError(
            f"{file}: {name} has a lora_mid of {tuple(layer.mid.shape)} where rank {rank} is meant;"
            " the file is damaged."
        )


def _refuse_kind(key: str, file: Path) -> None:
    for pattern, kind in OTHER_KINDS.items():
        if re.search(pattern, key):
            raise TastemakerError(
                f"{file}: {key} is of the kind {kind}: plain LoRA alone is read. Extract a LoRA"
                " from it with the tool that made it, or put it into the model's weights there and"
                " give that pipeline."
            )
