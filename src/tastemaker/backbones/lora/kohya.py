"""LoRA in the layout of kohya's sd-scripts, which ComfyUI and A1111 read too.

A module is named by its path in the model's original code, with `_` for `.`: of SD 1 and 2 as
diffusers has it, of SDXL, SD3 and FLUX as `originals.py` has it. Beside both factors is `alpha`.
Files of other tools are read by `dialects.py`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from tastemaker.backbones.lora.layers import Layer
from tastemaker.backbones.lora.originals import Fused, adaptable, original_layers, text_layers
from tastemaker.core.errors import TastemakerError

if TYPE_CHECKING:
    from tastemaker.backbones.base import Backbone

DOWN, UP, ALPHA = ".lora_down.weight", ".lora_up.weight", ".alpha"


Names = dict[str, Fused]
"""Layers of the original code by kohya's name."""


def to_kohya(layers: Mapping[str, Layer], names: Names) -> dict[str, torch.Tensor]:
    """Rename layers, and fuse those that the original code fuses.

    Parts that share `down` and scale keep them; of others the ranks add and `up` is block-diagonal.

    Args:
        layers: By part and module.
        names: Of the model, from `names_of`.

    Returns:
        Tensors by kohya's keys.

    Raises:
        TastemakerError: A module has no name there.
    """
    left = _one_alpha(layers)
    tensors: dict[str, torch.Tensor] = {}
    for name, fused in names.items():
        given = [left.pop(part, None) for part in fused.parts]
        layer = _fused(given, fused.rows)
        if layer is not None:
            tensors[name + DOWN] = layer.down.contiguous()
            tensors[name + UP] = fused.ordered(layer.up).contiguous()
            # In float32 always: a half-precision alpha would be another scale.
            tensors[name + ALPHA] = torch.tensor(layer.alpha, dtype=torch.float32)
    if left:
        raise TastemakerError(
            f"{next(iter(left))} has no name in kohya's layout; leave it out of"
            " lora.target_modules."
        )
    return {key: tensors[key] for key in sorted(tensors)}


def _one_alpha(layers: Mapping[str, Layer]) -> dict[str, Layer]:
    """Give all layers of a U-Net or text encoder the alpha that most have, `up` the quotient.

    diffusers' reader of these files applies one alpha to all layers.
    """
    alphas: dict[str, Counter[float]] = {}
    for module, layer in layers.items():
        alphas.setdefault(module.partition(".")[0], Counter())[layer.alpha] += 1
    equal = {}
    for module, layer in layers.items():
        part = module.partition(".")[0]
        ((alpha, _),) = alphas[part].most_common(1)
        if part != "transformer" and layer.alpha != alpha:
            layer = Layer(layer.down, layer.up.float() * (layer.alpha / alpha), alpha)
        equal[module] = layer
    return equal


def _fused(given: Sequence[Layer | None], rows: Sequence[int]) -> Layer | None:
    present = [layer for layer in given if layer is not None]
    if not present:
        return None
    if len(rows) == 1:
        return present[0]
    first = present[0]
    equal = len({layer.scale for layer in present}) == 1
    if equal and all(torch.equal(layer.down, first.down) for layer in present):
        height = zip(given, rows, strict=True)
        ups = [each.up if each else first.up.new_zeros(high, first.rank) for each, high in height]
        return Layer(first.down, torch.cat(ups), first.alpha)
    down = torch.cat([layer.down for layer in present])
    dtype = down.dtype if equal else torch.float32
    up = torch.zeros(sum(rows), len(down), dtype=dtype)
    top, left = 0, 0
    for layer, high in zip(given, rows, strict=True):
        if layer is not None:
            part = layer.up if equal else layer.up.float() * layer.scale
            up[top : top + high, left : left + layer.rank] = part
            left += layer.rank
        top += high
    scale = first.scale if equal else 1.0
    return Layer(down, up, scale * len(down))


def names_of(model: Backbone) -> Names:
    """Kohya's names for all layers of a model that a LoRA may adapt.

    Args:
        model: On any device, also without weights.

    Returns:
        The names.

    Raises:
        TastemakerError: The layout has no names for the model's family.
    """
    part, denoiser = model.part, model.denoiser
    layers = original_layers(part, denoiser)
    if not layers:
        raise TastemakerError(
            f"{model.name}: kohya's layout is not known for LoRAs of {model.title}; take"
            " layout=diffusers."
        )
    if part == "unet" and denoiser.config.addition_embed_type != "text_time":
        # sd-scripts trains SDXL on the original code, SD 1 and 2 on diffusers'.
        layers = adaptable(part, denoiser)
    names = {f"lora_unet_{path.replace('.', '_')}": layer for path, layer in layers.items()}
    clips = {name: each for name, each in model.networks.items() if is_clip(each)}
    single = len(clips) == 1 and part == "unet"
    for number, (name, encoder) in enumerate(clips.items(), 1):
        for path, layer in text_layers(name, encoder).items():
            names[f"lora_te{'' if single else number}_{path.replace('.', '_')}"] = layer
    return names


def is_clip(network: Any) -> bool:
    """Return whether a network is a CLIP text encoder, which a LoRA may adapt."""
    return type(network).__name__.startswith("CLIPText")
