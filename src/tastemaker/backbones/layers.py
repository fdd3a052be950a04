"""A LoRA file as layers by the name of their module: read, written, laid on one another."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from tastemaker.backbones.lora import LORA_FILE, METADATA
from tastemaker.errors import TastemakerError
from tastemaker.files import write_tensors

DOWN = (".lora.down.weight", ".lora_linear_layer.down.weight", ".lora_A.weight")
UP = (".lora.up.weight", ".lora_linear_layer.up.weight", ".lora_B.weight")
"""How the keys of a layer's two factors end in diffusers' form."""

WRITTEN = {"unet": 0, "transformer": 2}
"""Which of these endings each part of a pipeline is written with; text encoders: 1."""


@dataclass(frozen=True)
class Layer:
    """The update of one layer: `alpha / rank * up @ down`.

    Attributes:
        down: [rank, inputs], or [rank, inputs, k, k] of a convolution.
        up: [outputs, rank], or [outputs, rank, 1, 1].
        alpha: Scale times rank.
    """

    down: torch.Tensor
    up: torch.Tensor
    alpha: float

    @property
    def rank(self) -> int:
        """Number of rows of `down`."""
        return len(self.down)

    @property
    def scale(self) -> float:
        """Factor on `up @ down`."""
        return self.alpha / self.rank


OUTER = "text_model.encoder."
"""What transformers 5 left out of the names inside a text encoder: patterns do without."""

Layers = dict[str, Layer]
"""By part and module, e.g. `unet.mid_block.attentions.0.proj_in`."""


def read_tensors(file: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Read a safetensors file with its header.

    Raises:
        TastemakerError: It is missing or torn.
    """
    if not file.is_file():
        raise TastemakerError(f"{file} does not exist; give the LoRA's file.")
    try:
        with safe_open(file, framework="pt") as stored:
            tensors = {key: stored.get_tensor(key) for key in stored.keys()}  # noqa: SIM118
            return tensors, dict(stored.metadata() or {})
    except SafetensorError as error:
        raise TastemakerError(f"{file} is no safetensors file: {error}.") from error


def read_layers(file: Path) -> Layers:
    """Read a LoRA as `train` or diffusers wrote it.

    Args:
        file: `pytorch_lora_weights.safetensors`; alpha from its header, else the rank.

    Returns:
        Its layers.

    Raises:
        TastemakerError: There is none, or a key is none of a LoRA's.
    """
    tensors, header = read_tensors(file)
    options = json.loads(header.get(METADATA, "{}"))
    layers: Layers = {}
    for key, down in tensors.items():
        end = next((each for each in DOWN if key.endswith(each)), None)
        if end is None:
            if not key.endswith(UP):
                raise TastemakerError(f"{file}: {key} is no tensor of a LoRA in diffusers' form.")
            continue
        module = key.removesuffix(end)
        up = tensors[module + UP[DOWN.index(end)]]
        layers[module] = Layer(down, up, _alpha(options, module, len(down)))
    return layers


def write_layers(layers: Mapping[str, Layer], folder: Path, header: str | None = None) -> None:
    """Write a LoRA as diffusers does, rank and alpha in the header.

    Args:
        layers: By part and module.
        folder: Of `pytorch_lora_weights.safetensors`.
        header: The options of an earlier file of the same layers, to be kept; None makes them.
    """
    tensors = {}
    for module, layer in layers.items():
        kind = WRITTEN.get(module.partition(".")[0], 1)
        tensors[module + DOWN[kind]] = layer.down.contiguous()
        tensors[module + UP[kind]] = layer.up.contiguous()
    metadata = header or json.dumps(_options(layers), sort_keys=True)
    write_tensors(
        folder / LORA_FILE,
        {key: tensors[key] for key in sorted(tensors)},
        {"format": "pt", METADATA: metadata},
    )


def summed(parts: Iterable[Mapping[str, Layer]]) -> Layers:
    """LoRAs on one another as one: their updates add, their ranks too.

    Args:
        parts: From the lowest up. A single one is returned as it is.

    Returns:
        Layers; where several touch one module its scale is 1.
    """
    total: Layers = {}
    for part in parts:
        for module, layer in part.items():
            below = total.get(module)
            total[module] = layer if below is None else _concatenated(below, layer)
    return total


def _concatenated(below: Layer, above: Layer) -> Layer:
    down = torch.cat([below.down, above.down])
    up = torch.cat([below.up * below.scale, above.up * above.scale], 1)
    return Layer(down, up, float(len(down)))


def _alpha(options: Mapping[str, Any], module: str, rank: int) -> float:
    """The header of diffusers: a default a part, and patterns for modules that differ."""
    part, _, name = module.partition(".")
    patterns = options.get(f"{part}.alpha_pattern") or {}
    default = options.get(f"{part}.lora_alpha", rank)
    return float(patterns.get(name, patterns.get(name.removeprefix(OUTER), default)))


def _options(layers: Mapping[str, Layer]) -> dict[str, Any]:
    """The header of layers that have none yet: as PEFT's options, one set a part."""
    options: dict[str, Any] = {}
    for part in sorted({module.partition(".")[0] for module in layers}):
        own = {
            module.removeprefix(f"{part}.").removeprefix(OUTER): layer
            for module, layer in sorted(layers.items())
            if module.startswith(f"{part}.")
        }
        first = next(iter(own.values()))
        options |= {
            f"{part}.r": first.rank,
            f"{part}.lora_alpha": first.alpha,
            f"{part}.target_modules": list(own),
            f"{part}.rank_pattern": {
                name: layer.rank for name, layer in own.items() if layer.rank != first.rank
            },
            f"{part}.alpha_pattern": {
                name: layer.alpha for name, layer in own.items() if layer.alpha != first.alpha
            },
        }
    return options
