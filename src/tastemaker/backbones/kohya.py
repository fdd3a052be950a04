"""LoRA in the layout of kohya's sd-scripts, which ComfyUI and A1111 read too.

A module is named by its path in the model's original code, with `_` for `.`: of SD 1 and 2 as
diffusers has it, of SDXL `input_blocks`, `middle_block`, `output_blocks`, of SD3 and FLUX blocks
whose query, key and value are one fused layer. Beside both factors stands `alpha`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from tastemaker.backbones.layers import Layer, Layers
from tastemaker.errors import TastemakerError

DOWN, UP, ALPHA = ".lora_down.weight", ".lora_up.weight", ".alpha"


@dataclass(frozen=True)
class Fused:
    """One layer of the original code.

    Attributes:
        parts: Modules that it consists of, by rows; mostly one.
        rows: Outputs of each.
    """

    parts: tuple[str, ...]
    rows: tuple[int, ...]


Names = dict[str, Fused]
"""Layers of the original code by kohya's name."""


def to_kohya(layers: Mapping[str, Layer], names: Names) -> dict[str, torch.Tensor]:
    """Rename layers, and fuse those that the original code fuses: up block-diagonal.

    Args:
        layers: By part and module.
        names: Of the model, from `names_of`.

    Returns:
        Tensors by kohya's keys.

    Raises:
        TastemakerError: A module has no name there.
    """
    left = dict(layers)
    tensors: dict[str, torch.Tensor] = {}
    for name, fused in names.items():
        given = [left.pop(part, None) for part in fused.parts]
        layer = _fused(given, fused.rows)
        if layer is not None:
            tensors[name + DOWN] = layer.down.contiguous()
            tensors[name + UP] = layer.up.contiguous()
            tensors[name + ALPHA] = torch.tensor(layer.alpha, dtype=layer.down.dtype)
    if left:
        raise TastemakerError(
            f"{next(iter(left))} has no name in kohya's layout; leave it out of lora.targets."
        )
    return {key: tensors[key] for key in sorted(tensors)}


def from_kohya(tensors: Mapping[str, torch.Tensor], names: Names) -> Layers:
    """The way back. A layer fused by `to_kohya` falls into its parts; another's factors are shared.

    Args:
        tensors: By kohya's keys; without `alpha` it is the rank.
        names: Of the model.

    Returns:
        Layers by part and module.

    Raises:
        TastemakerError: A key is none of this family's, or a shape does not fit.
    """
    layers: Layers = {}
    for key, down in tensors.items():
        name = key.partition(".")[0]
        if name not in names:
            raise TastemakerError(
                f"{key} is no layer of this model: the LoRA belongs to another family."
            )
        end = key.removeprefix(name)
        if end not in (DOWN, UP, ALPHA):
            raise TastemakerError(
                f"{key}: plain LoRA alone is read (lora_down, lora_up, alpha), no LoHa, LoKr or"
                " DoRA."
            )
        if end != DOWN:
            continue
        fused, up = names[name], tensors[name + UP]
        if len(up) != sum(fused.rows) or up.shape[1] != len(down):
            raise TastemakerError(
                f"{name}: up {tuple(up.shape)} and down {tuple(down.shape)} do not fit a layer of"
                f" {sum(fused.rows)} outputs; the LoRA belongs to a model of another size."
            )
        alpha = float(tensors.get(name + ALPHA, torch.tensor(float(len(down)))))
        layers |= _split(Layer(down, up, alpha), fused)
    return layers


def _fused(given: Sequence[Layer | None], rows: Sequence[int]) -> Layer | None:
    present = [layer for layer in given if layer is not None]
    if not present:
        return None
    if len(rows) == 1:
        return present[0]
    down = torch.cat([layer.down for layer in present])
    up = down.new_zeros(sum(rows), len(down))
    equal = len({layer.scale for layer in present}) == 1
    top, left = 0, 0
    for layer, height in zip(given, rows, strict=True):
        if layer is not None:
            part = layer.up if equal else layer.up * layer.scale
            up[top : top + height, left : left + layer.rank] = part
            left += layer.rank
        top += height
    scale = present[0].scale if equal else 1.0
    return Layer(down, up, scale * len(down))


def _split(layer: Layer, fused: Fused) -> Layers:
    if len(fused.parts) == 1:
        return {fused.parts[0]: layer}
    blocks = layer.up.split(list(fused.rows))
    used = [torch.nonzero(block.abs().sum(0))[:, 0] for block in blocks]
    together = torch.cat(used)
    disjoint = len(together) == len(torch.unique(together))
    layers: Layers = {}
    for part, block, columns in zip(fused.parts, blocks, used, strict=True):
        if not len(columns):
            continue
        if disjoint:
            own = layer.scale * len(columns)
            layers[part] = Layer(layer.down[columns], block[:, columns], own)
        else:
            layers[part] = Layer(layer.down, block.contiguous(), layer.alpha)
    return layers


def names_of(denoiser: Any, text_parts: Mapping[str, Any]) -> Names:
    """Kohya's names for all layers of a model that a LoRA may adapt.

    Args:
        denoiser: A U-Net or transformer, on any device, also without weights.
        text_parts: CLIP text encoders by their names in the pipeline; all of the pipeline's, in
            its order, for their number depends on it.

    Returns:
        The names.
    """
    part, rename = _denoiser(denoiser)
    names: dict[str, list[tuple[str, int]]] = {}
    for module, layer in _adaptable(denoiser):
        original = rename(module, denoiser.config)
        if original is not None:
            whole = f"lora_unet_{original.replace('.', '_')}"
            names.setdefault(whole, []).append((f"{part}.{module}", _outputs(layer)))
    single = len(text_parts) == 1 and part == "unet"
    for number, (text, encoder) in enumerate(text_parts.items(), 1):
        prefix = "lora_te_" if single else f"lora_te{number}_"
        for module, layer in _adaptable(encoder):
            path = module if module.startswith("text_model.") else f"text_model.{module}"
            if ".layers." in path:
                names[prefix + path.replace(".", "_")] = [(f"{text}.{path}", _outputs(layer))]
    return {
        name: Fused(*(tuple(each) for each in zip(*sorted(parts, key=_order), strict=True)))
        for name, parts in names.items()
    }


def _adaptable(network: Any) -> list[tuple[str, Any]]:
    return [
        (name, module)
        for name, module in network.named_modules()
        if isinstance(module, (torch.nn.Linear, torch.nn.Conv2d))
    ]


def _outputs(layer: Any) -> int:
    return int(layer.weight.shape[0])


FUSED_ORDER = ("q", "k", "v", "mlp")


def _order(part: tuple[str, int]) -> int:
    """Rows of a fused layer: query, key, value, then what FLUX's single blocks add."""
    found = re.search(r"(?:to_|add_)(q|k|v)\b|(?:to_|add_)(q|k|v)_proj|proj_(mlp)", part[0])
    return FUSED_ORDER.index(next(each for each in found.groups() if each)) if found else 0


def _as_it_is(module: str, config: Any) -> str | None:
    return module


def _sgm(module: str, config: Any) -> str | None:
    """SDXL: diffusers' blocks counted through, `down_blocks.1.attentions.0` is `input_blocks.4.1`.

    Each level has `layers_per_block` layers and, but the last, one that changes the size; on the
    way up one layer more, with the change of size inside its last.
    """
    layers = config.layers_per_block
    found = re.fullmatch(r"(down|up)_blocks\.(\d+)\.(resnets|attentions)\.(\d+)\.(.+)", module)
    if found:
        way, level, kind, layer, rest = found.groups()
        side = layers + 1
        number = int(level) * side + int(layer) + (1 if way == "down" else 0)
        block = f"{'input' if way == 'down' else 'output'}_blocks.{number}"
        return f"{block}.{0 if kind == 'resnets' else 1}.{_resnet(rest, kind)}"
    found = re.fullmatch(r"mid_block\.(resnets|attentions)\.(\d+)\.(.+)", module)
    if found:
        kind, layer, rest = found.groups()
        place = 1 if kind == "attentions" else 2 * int(layer)
        return f"middle_block.{place}.{_resnet(rest, kind)}"
    found = re.fullmatch(r"down_blocks\.(\d+)\.downsamplers\.0\.conv", module)
    if found:
        return f"input_blocks.{(int(found[1]) + 1) * (layers + 1)}.0.op"
    found = re.fullmatch(r"up_blocks\.(\d+)\.upsamplers\.0\.conv", module)
    if found:
        level = int(found[1])
        attended = "CrossAttn" in config.up_block_types[level]
        return f"output_blocks.{level * (layers + 1) + layers}.{2 if attended else 1}.conv"
    return {
        "conv_in": "input_blocks.0.0",
        "conv_out": "out.2",
        "time_embedding.linear_1": "time_embed.0",
        "time_embedding.linear_2": "time_embed.2",
        "add_embedding.linear_1": "label_emb.0.0",
        "add_embedding.linear_2": "label_emb.0.2",
    }.get(module)


def _resnet(rest: str, kind: str) -> str:
    if kind == "attentions":
        return rest
    return {
        "conv1": "in_layers.2",
        "time_emb_proj": "emb_layers.1",
        "conv2": "out_layers.3",
        "conv_shortcut": "skip_connection",
    }[rest]


SD3_LAYERS = {
    "attn.to_q": "x_block.attn.qkv",
    "attn.to_k": "x_block.attn.qkv",
    "attn.to_v": "x_block.attn.qkv",
    "attn.to_out.0": "x_block.attn.proj",
    "attn.add_q_proj": "context_block.attn.qkv",
    "attn.add_k_proj": "context_block.attn.qkv",
    "attn.add_v_proj": "context_block.attn.qkv",
    "attn.to_add_out": "context_block.attn.proj",
    "attn2.to_q": "x_block.attn2.qkv",
    "attn2.to_k": "x_block.attn2.qkv",
    "attn2.to_v": "x_block.attn2.qkv",
    "attn2.to_out.0": "x_block.attn2.proj",
    "ff.net.0.proj": "x_block.mlp.fc1",
    "ff.net.2": "x_block.mlp.fc2",
    "ff_context.net.0.proj": "context_block.mlp.fc1",
    "ff_context.net.2": "context_block.mlp.fc2",
}
FLUX_DOUBLE = {
    "attn.to_q": "img_attn.qkv",
    "attn.to_k": "img_attn.qkv",
    "attn.to_v": "img_attn.qkv",
    "attn.to_out.0": "img_attn.proj",
    "attn.add_q_proj": "txt_attn.qkv",
    "attn.add_k_proj": "txt_attn.qkv",
    "attn.add_v_proj": "txt_attn.qkv",
    "attn.to_add_out": "txt_attn.proj",
    "ff.net.0.proj": "img_mlp.0",
    "ff.net.2": "img_mlp.2",
    "ff_context.net.0.proj": "txt_mlp.0",
    "ff_context.net.2": "txt_mlp.2",
    "norm1.linear": "img_mod.lin",
    "norm1_context.linear": "txt_mod.lin",
}
FLUX_SINGLE = {
    "attn.to_q": "linear1",
    "attn.to_k": "linear1",
    "attn.to_v": "linear1",
    "proj_mlp": "linear1",
    "proj_out": "linear2",
    "norm.linear": "modulation.lin",
}


def _sd3(module: str, config: Any) -> str | None:
    found = re.fullmatch(r"transformer_blocks\.(\d+)\.(.+)", module)
    layer = SD3_LAYERS.get(found[2]) if found else None
    return f"joint_blocks.{found[1]}.{layer}" if found and layer else None


def _flux(module: str, config: Any) -> str | None:
    found = re.fullmatch(r"(single_)?transformer_blocks\.(\d+)\.(.+)", module)
    if found is None:
        return None
    layer = (FLUX_SINGLE if found[1] else FLUX_DOUBLE).get(found[3])
    return f"{'single' if found[1] else 'double'}_blocks.{found[2]}.{layer}" if layer else None


Rename = Callable[[str, Any], str | None]
"""From a module of diffusers and the network's configuration to the original path, or None."""


def _denoiser(network: Any) -> tuple[str, Rename]:
    """Its name in a pipeline, and how its modules are called in the original code."""
    if type(network).__name__ == "SD3Transformer2DModel":
        return "transformer", _sd3
    if type(network).__name__ == "FluxTransformer2DModel":
        return "transformer", _flux
    # sd-scripts trains SDXL on the original code, SD 1 and 2 on diffusers'.
    return "unet", _sgm if network.config.addition_embed_type == "text_time" else _as_it_is
