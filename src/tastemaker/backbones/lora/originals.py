"""Names of a denoiser's layers in the model's original code, which many tools use.

Of SD and SDXL `input_blocks`, `middle_block`, `output_blocks`; of SD3 and FLUX blocks whose query,
key and value are one fused layer.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from tastemaker.backbones.lora.diffusers_file import CLIP_PREFIX


@dataclass(frozen=True)
class Fused:
    """One layer of the original code.

    Attributes:
        parts: Modules of diffusers that it consists of, in the order of its rows; mostly one.
        rows: Outputs of each.
        inputs: Shape of the weight without its outputs.
        swapped: The halves of its outputs, scale and shift, are in the other order there.
    """

    parts: tuple[str, ...]
    rows: tuple[int, ...]
    inputs: tuple[int, ...]
    swapped: bool = False

    def ordered(self, up: torch.Tensor) -> torch.Tensor:
        """Exchange the halves of the outputs where the two codes differ; its own inverse."""
        return up.roll(len(up) // 2, 0) if self.swapped else up


def adaptable(part: str, network: Any) -> dict[str, Fused]:
    """Return all linear layers and convolutions by their own path in a network.

    Args:
        part: The network's name in its pipeline.
        network: On any device, also without weights.
    """
    found = {}
    for name, module in network.named_modules():
        if isinstance(module, (torch.nn.Linear, torch.nn.Conv2d)):
            outputs, *inputs = module.weight.shape
            found[name] = Fused((f"{part}.{name}",), (outputs,), tuple(inputs))
    return found


def text_layers(part: str, encoder: Any) -> dict[str, Fused]:
    """Return a text encoder's layers by their path in transformers 4, `text_model.encoder...`."""
    return {
        path: Fused((f"{part}.{path}",), layer.rows, layer.inputs)
        for name, layer in adaptable(part, encoder).items()
        # transformers 5 has CLIP without that prefix, T5 never had it.
        for path in (f"{CLIP_PREFIX}{name}" if name.startswith("encoder.layers.") else name,)
    }


def original_layers(part: str, network: Any) -> dict[str, Fused]:
    """Return a denoiser's layers by their path in the model's original code.

    Args:
        part: Its name in its pipeline.
        network: A U-Net or transformer, on any device, also without weights.

    Returns:
        Those that have a name there; empty for a class that is not in `RENAMES`.
    """
    rename = RENAMES.get(type(network).__name__)
    if rename is None:
        return {}
    groups: dict[str, list[Fused]] = {}
    for name, layer in adaptable(part, network).items():
        path = rename(name, network.config)
        if path is not None:
            groups.setdefault(path, []).append(layer)
    return {path: _together(sorted(layers, key=_order)) for path, layers in groups.items()}


def _together(layers: list[Fused]) -> Fused:
    (first, *_) = layers
    return Fused(
        tuple(layer.parts[0] for layer in layers),
        tuple(layer.rows[0] for layer in layers),
        first.inputs,
        _swapped(first),
    )


def _swapped(layer: Fused) -> bool:
    """Return whether a layer gives scale and shift, which the original code swaps."""
    found = re.search(r"(norm_out|norm1_context)\.linear$", layer.parts[0])
    return found is not None and layer.rows[0] == 2 * layer.inputs[0]


FUSED_ORDER = ("q", "k", "v", "mlp")


def _order(layer: Fused) -> int:
    """Rows of a fused layer: query, key, value, then what FLUX's single blocks add."""
    found = re.search(r"(?:to_|add_)(q|k|v)\b|(?:to_|add_)(q|k|v)_proj|proj_(mlp)", layer.parts[0])
    return FUSED_ORDER.index(next(each for each in found.groups() if each)) if found else 0


def _sgm(module: str, config: Any) -> str | None:
    """SD and SDXL count blocks through: `down_blocks.1.attentions.0` is `input_blocks.4.1`.

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
    "norm1.linear": "x_block.adaLN_modulation.1",
    "norm1_context.linear": "context_block.adaLN_modulation.1",
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


SD3_OUTER = {
    "pos_embed.proj": "x_embedder.proj",
    "context_embedder": "context_embedder",
    "time_text_embed.timestep_embedder.linear_1": "t_embedder.mlp.0",
    "time_text_embed.timestep_embedder.linear_2": "t_embedder.mlp.2",
    "time_text_embed.text_embedder.linear_1": "y_embedder.mlp.0",
    "time_text_embed.text_embedder.linear_2": "y_embedder.mlp.2",
    "norm_out.linear": "final_layer.adaLN_modulation.1",
    "proj_out": "final_layer.linear",
}
FLUX_OUTER = {
    "x_embedder": "img_in",
    "context_embedder": "txt_in",
    "time_text_embed.timestep_embedder.linear_1": "time_in.in_layer",
    "time_text_embed.timestep_embedder.linear_2": "time_in.out_layer",
    "time_text_embed.text_embedder.linear_1": "vector_in.in_layer",
    "time_text_embed.text_embedder.linear_2": "vector_in.out_layer",
    "time_text_embed.guidance_embedder.linear_1": "guidance_in.in_layer",
    "time_text_embed.guidance_embedder.linear_2": "guidance_in.out_layer",
    "norm_out.linear": "final_layer.adaLN_modulation.1",
    "proj_out": "final_layer.linear",
}


def _sd3(module: str, config: Any) -> str | None:
    found = re.fullmatch(r"transformer_blocks\.(\d+)\.(.+)", module)
    layer = SD3_LAYERS.get(found[2]) if found else None
    return f"joint_blocks.{found[1]}.{layer}" if found and layer else SD3_OUTER.get(module)


def _flux(module: str, config: Any) -> str | None:
    found = re.fullmatch(r"(single_)?transformer_blocks\.(\d+)\.(.+)", module)
    if found is None:
        return FLUX_OUTER.get(module)
    layer = (FLUX_SINGLE if found[1] else FLUX_DOUBLE).get(found[3])
    return f"{'single' if found[1] else 'double'}_blocks.{found[2]}.{layer}" if layer else None


RENAMES: dict[str, Callable[[str, Any], str | None]] = {
    "UNet2DConditionModel": _sgm,
    "SD3Transformer2DModel": _sd3,
    "FluxTransformer2DModel": _flux,
}
"""By class of the denoiser: from a module of diffusers and the configuration to the original path.

Other classes are read by diffusers' own names, and not written in kohya's layout.
"""
