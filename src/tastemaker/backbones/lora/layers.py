"""A LoRA file as layers by the name of their module: read, written, laid on one another."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tastemaker.backbones.lora.diffusers_file import CLIP_PREFIX, METADATA, part_of
from tastemaker.backbones.lora.factors import read_factors
from tastemaker.backbones.places import LORA_FILE
from tastemaker.core.errors import TastemakerError
from tastemaker.core.reading import open_file, open_tensors
from tastemaker.storage.tensors import write_tensors

DOWN = (".lora.down.weight", ".lora_linear_layer.down.weight", ".lora_A.weight")
UP = (".lora.up.weight", ".lora_linear_layer.up.weight", ".lora_B.weight")
"""Suffixes of the keys of a layer's two factors in diffusers' files."""

WRITTEN = {"unet": 0, "text_encoder": 1, "text_encoder_2": 1}
"""Index of the suffixes that each part of a pipeline is written with; transformers: PEFT's, 2."""


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


Layers = dict[str, Layer]
"""By part and module, e.g. `unet.mid_block.attentions.0.proj_in`."""


def read_tensors(file: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Read a LoRA's safetensors file with its header; 8-bit floats become bf16, without loss.

    Raises:
        TastemakerError: It is missing, torn, empty or of another format, or a number in it is not
            finite.
    """
    stored: Any
    try:
        with open_tensors(file) as stored:
            tensors = {key: stored.get_tensor(key) for key in stored.keys()}  # noqa: SIM118
            header = dict(stored.metadata() or {})
    except TastemakerError:
        _refuse_pickle(file)
        raise
    if not tensors:
        raise TastemakerError(f"{file} is empty: it has no tensor. Save the LoRA again.")
    for key, value in tensors.items():
        if value.dtype.itemsize == 1 and value.is_floating_point():
            tensors[key] = value.bfloat16()
        elif not value.is_floating_point() and value.numel() > 1:
            raise TastemakerError(
                f"{file}: {key} is of {value.dtype}, a quantised file; give the LoRA in bf16, fp16"
                " or fp32."
            )
        if not tensors[key].isfinite().all():
            raise TastemakerError(
                f"{file}: {key} is not finite (NaN or infinity): the training that wrote it"
                " diverged, or the file is damaged. Give an earlier checkpoint."
            )
    return tensors, header


PICKLES = (b"PK\x03\x04", b"\x80")
"""First bytes of files of `torch.save`."""


def _refuse_pickle(file: Path) -> None:
    with open_file(file) as raw:
        start = raw.read(4)
    if start.startswith(PICKLES):
        raise TastemakerError(
            f"{file} is a pickle of torch.save, which can run a stranger's code when it is read."
            " Convert it where you trust it: safetensors.torch.save_file(torch.load(FILE,"
            ' weights_only=True), "lora.safetensors").'
        )


def read_layers(file: Path) -> Layers:
    """Read a LoRA as `train`, `import` or diffusers wrote it.

    Args:
        file: `pytorch_lora_weights.safetensors`; alpha from its header, else the rank.

    Returns:
        Its layers, those of text encoders by their names in transformers 4.

    Raises:
        TastemakerError: There is none, or a key is none of a LoRA's.
    """
    tensors, header = read_tensors(file)
    factors, unknown = read_factors(tensors, file)
    if unknown:
        raise TastemakerError(f"{file}: {unknown[0]} is not a tensor of a LoRA in diffusers' form.")
    options = read_options(header, file)
    layers: Layers = {}
    for name, layer in factors.items():
        part, _, path = name.partition(".")
        if part.startswith("text_encoder") and path.startswith("encoder.layers."):
            path = f"{CLIP_PREFIX}{path}"
        down, up = layer.product()
        alpha = layer.alpha
        if alpha is None:
            alpha = effective_alpha(part_of(options, part), path, len(down))
        layers[f"{part}.{path}"] = Layer(down, up, alpha)
    return layers


def read_options(header: Mapping[str, str], file: Path) -> dict[str, Any]:
    """Read the options of PEFT that diffusers keeps in a file's header, `unet.lora_alpha`...

    Raises:
        TastemakerError: They are damaged.
    """
    try:
        options = json.loads(header.get(METADATA, "{}"))
    except (ValueError, RecursionError):
        options = None
    if not isinstance(options, dict):
        raise TastemakerError(
            f"{file}: {METADATA} in its header is not a JSON object; it is damaged."
        )
    return options


def effective_alpha(options: Mapping[str, Any], module: str, rank: int) -> float:
    """Return the alpha with which `alpha / rank` is the scale that PEFT's options give a module.

    `alpha * sqrt(rank)` of rank-stabilised LoRA, whose scale is `alpha / sqrt(rank)`. This is the
    only place that computes a scale: import, export, stacking and going on from a LoRA all
    read it from here.

    Args:
        options: `lora_alpha`, `alpha_pattern`, `use_rslora`; without any, the scale is 1.
        module: Path in its network.
        rank: Of its factors.

    Example:
        >>> effective_alpha({"lora_alpha": 8}, "mid.to_q", 4)
        8.0
        >>> effective_alpha({"lora_alpha": 8, "use_rslora": True}, "mid.to_q", 4)
        16.0
        >>> effective_alpha({"lora_alpha": 8, "alpha_pattern": {"to_q": 2}}, "mid.to_q", 4)
        2.0
        >>> effective_alpha({}, "mid.to_q", 4)
        4.0

    References:
        Kalajdzievski 2023, A Rank Stabilization Scaling Factor for Fine-Tuning with LoRA.
    """
    from peft.utils.other import get_pattern_key

    patterns = options.get("alpha_pattern") or {}
    default = options.get("lora_alpha", rank)
    alpha = float(patterns.get(get_pattern_key(patterns, module), default))
    return alpha * math.sqrt(rank) if options.get("use_rslora") else alpha


def write_layers(layers: Mapping[str, Layer], folder: Path, header: str | None = None) -> None:
    """Write a LoRA as diffusers does, rank and alpha in the header.

    Args:
        layers: By part and module.
        folder: Of `pytorch_lora_weights.safetensors`.
        header: The options of an earlier file of the same layers, to be kept; None makes them.
    """
    tensors = {}
    for module, layer in layers.items():
        kind = WRITTEN.get(module.partition(".")[0], 2)
        # Copies, for parts of one fused layer may share a factor, and a file holds none twice.
        tensors[module + DOWN[kind]] = layer.down.clone()
        tensors[module + UP[kind]] = layer.up.clone()
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
    up = torch.cat([below.up.float() * below.scale, above.up.float() * above.scale], 1)
    return Layer(down, up, float(len(down)))


def _options(layers: Mapping[str, Layer]) -> dict[str, Any]:
    """The header of layers that have none yet: as PEFT's options, one set a part."""
    options: dict[str, Any] = {}
    for part in sorted({module.partition(".")[0] for module in layers}):
        own = {
            # PEFT matches the paths of transformers 5, which has no such prefix.
            name.removeprefix(f"{CLIP_PREFIX}encoder."): layer
            for name, layer in sorted(part_of(layers, part).items())
        }
        first = next(iter(own.values()))
        options |= {
            f"{part}.r": first.rank,
            f"{part}.lora_alpha": first.alpha,
            f"{part}.target_modules": _targets(part, list(own)),
            f"{part}.rank_pattern": {
                _pattern(name, own): layer.rank
                for name, layer in own.items()
                if layer.rank != first.rank
            },
            f"{part}.alpha_pattern": {
                _pattern(name, own): layer.alpha
                for name, layer in own.items()
                if layer.alpha != first.alpha
            },
        }
    return options


def _pattern(name: str, names: Iterable[str]) -> str:
    """A name as PEFT's pattern: anchored where it is the end of another's, `proj_out` of FLUX."""
    return f"^{name}" if any(other.endswith(f".{name}") for other in names) else name


def _targets(part: str, names: list[str]) -> list[str] | str:
    """Names of modules; a pattern where PEFT would take the end of another module for one."""
    if part.startswith("text_encoder") or all("." in name for name in names):
        return names
    return "|".join(re.escape(name) for name in names)
