"""LoRA weights in and out of a loaded model: attached, loaded, saved, or fused into the weights."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from tastemaker.backbones.lora.adapters import has_adapter
from tastemaker.backbones.lora.diffusers_file import (
    CLIP_PREFIX,
    METADATA,
    POLICY,
    flattened,
    lora_layers,
    lora_metadata,
    part_of,
)
from tastemaker.backbones.lora.layers import WRITTEN, Layer, Layers, read_layers, read_tensors
from tastemaker.backbones.places import LORA_FILE
from tastemaker.backbones.textual_inversion import refuse_token
from tastemaker.backbones.tokens import TEXT
from tastemaker.core.errors import TastemakerError
from tastemaker.storage.tensors import write_tensors

if TYPE_CHECKING:
    from tastemaker.backbones.base import Backbone


def attach_lora(backbone: Backbone, folder: Path, adapter: str = POLICY) -> None:
    """Put a saved LoRA on a model.

    Args:
        backbone: The model.
        folder: Folder of a LoRA in diffusers' form.
        adapter: Name that it gets.

    Raises:
        TastemakerError: It belongs to another family, or to a network of other sizes.
    """
    read_tensors(folder / LORA_FILE)
    pipeline = backbone.pipeline
    misfit = f"{backbone.name}, a {type(pipeline).__name__}:"
    try:
        pipeline.load_lora_weights(
            str(folder),
            adapter_name=adapter,
            # On `meta` the LoRA's own numbers are kept, which is what it is loaded there for.
            low_cpu_mem_usage=backbone.device.type == "meta",
        )
    except (RuntimeError, ValueError, KeyError, TypeError) as error:
        # torch names the layer in its second line.
        first = " ".join(line.strip() for line in str(error).strip().splitlines()[:2])
        raise TastemakerError(
            f"the LoRA in {folder} does not fit {misfit} {first} Load it on the model that it was"
            " trained on."
        ) from error
    if not any(adapter in names for names in pipeline.get_list_adapters().values()):
        raise TastemakerError(
            f"the LoRA in {folder} adapts nothing of {misfit} it belongs to another family. Load it"
            " on the model that it was trained on."
        )
    if adapter == POLICY:
        backbone.attached = folder


def attached_layers(backbone: Backbone) -> Layers:
    """Return the attached LoRA as it acts: factors and scale by part and module."""
    found: Layers = {}
    for part in backbone.adaptable_parts:
        network = getattr(backbone.pipeline, part)
        found |= {f"{part}.{path}": each for path, each in adapter_layers(network, POLICY)}
    return found


def load_adapter(backbone: Backbone, folder: Path, adapter: str) -> None:
    """Load a saved LoRA into an adapter that is on the model already.

    Args:
        backbone: The model.
        folder: Folder that `save_adapter` wrote.
        adapter: Name of an adapter of the same layers and rank, on any part of the pipeline.

    Raises:
        TastemakerError: The LoRA has other layers, another rank or alpha, or a learned word.
    """
    refuse_token(folder)
    layers = read_layers(folder / LORA_FILE)
    for part, network in _adapted_by(backbone, adapter).items():
        own = part_of(layers, part)
        # Without one of the file, a text encoder's LoRA starts afresh.
        if own or not part.startswith(TEXT):
            load_lora(network, adapter, own, folder)


def save_adapter(backbone: Backbone, folder: Path, adapter: str) -> None:
    """Save an adapter as `pytorch_lora_weights.safetensors`, readable by `load_lora_weights`."""
    tensors: dict[str, torch.Tensor] = {}
    options: dict[str, Any] = {}
    for part, network in _adapted_by(backbone, adapter).items():
        layers = lora_layers(network, adapter, peft=part not in WRITTEN)
        tensors |= {f"{part}.{key}": value for key, value in layers.items()}
        about = lora_metadata(network, adapter)
        options |= {f"{part}.{key}": value for key, value in about.items()}
    header = {"format": "pt", METADATA: json.dumps(options, indent=2, sort_keys=True)}
    write_tensors(folder / LORA_FILE, tensors, header)


def _adapted_by(backbone: Backbone, adapter: str) -> dict[str, torch.nn.Module]:
    """Networks of a model that carry an adapter, by part."""
    parts = {name: getattr(backbone.pipeline, name) for name in backbone.adaptable_parts}
    return {name: each for name, each in parts.items() if has_adapter(each, adapter)}


Replaced = dict[torch.nn.Parameter, torch.Tensor]
"""Weights that a LoRA was added to, and their values before."""


def fuse_layers(
    backbone: Backbone, layers: Mapping[str, Layer], replaced: Replaced | None = None
) -> None:
    """Add updates of LoRAs to a model's weights, in float32 and rounded once.

    Args:
        backbone: The model.
        layers: By part and module, as `layers.read_layers` and `layers.summed` return them.
        replaced: Gets the weights' values before.

    Raises:
        TastemakerError: They do not fit.
    """
    for part in sorted({module.partition(".")[0] for module in layers}):
        if part not in backbone.adaptable_parts:
            raise TastemakerError(
                f"a LoRA below adapts {part}, which no LoRA may on {backbone.name}, a"
                f" {type(backbone.pipeline).__name__}. Take the base that it belongs to."
            )
        fuse(getattr(backbone.pipeline, part), part_of(layers, part), replaced)


def fuse_attached(backbone: Backbone) -> None:
    """Add the attached LoRA to the weights, so that a new one can be trained on top."""
    if backbone.attached is not None:
        layers = read_layers(backbone.attached / LORA_FILE)
        backbone.pipeline.unload_lora_weights()
        fuse_layers(backbone, layers)
        backbone.attached = None


def fuse_policy(backbone: Backbone, replaced: Replaced | None = None) -> None:
    """Add the denoiser's LoRA, as it acts, to weights in float32: sampling without adapters.

    In half precision it stays beside the weights, where a sum is rounded to them most of a small
    update would be lost. So do those of text encoders, which act once per prompt, and any with
    LAN, which samples without it too.

    Args:
        backbone: The model.
        replaced: Gets the weights' values before.
    """
    denoiser = backbone.denoiser
    if has_adapter(denoiser) and denoiser.dtype == torch.float32 and not backbone.lan:
        layers = dict(adapter_layers(denoiser, POLICY))
        denoiser.unload_lora()
        fuse(denoiser, layers, replaced)


def remove_loras(backbone: Backbone, replaced: Replaced) -> None:
    """Take a model's LoRAs off: what is left is the base, bit for bit.

    Args:
        backbone: The model.
        replaced: The weights that LoRAs were added to, and their values before; is emptied.
    """
    vars(backbone.denoiser).pop("forward", None)  # of a negative-preference LoRA
    backbone.pipeline.unload_lora_weights()
    with torch.no_grad():
        for weight, value in replaced.items():
            weight.copy_(value)
    replaced.clear()
    backbone.attached = backbone.text_range = None
    backbone.lan = False


def load_lora(module: Any, adapter: str, layers: Mapping[str, Layer], folder: Path) -> None:
    """Give an adapter that is put on the update of a file.

    If the file's scale is not the adapter's (another alpha, rank-stabilised, a pattern), the
    second factor takes the quotient, so that training goes on from the same model.

    Args:
        module: The network that carries the adapter.
        adapter: Its name.
        layers: The file's for this network, by path.
        folder: Their folder, for messages.

    Raises:
        TastemakerError: Other layers or shapes than the adapter's.
    """
    carried = dict(adapter_layers(module, adapter))
    shapes, expected = (
        {path: (layer.down.shape, layer.up.shape) for path, layer in each.items()}
        for each in (layers, carried)
    )
    if shapes != expected:
        raise TastemakerError(
            f"the LoRA in {folder} does not fit {type(module).__name__} with"
            f" {_form(expected)}: the file has {_form(shapes)}. Set lora.r and"
            " lora.target_modules as it was trained, or take the base that it belongs to."
        )
    with torch.no_grad():
        for path, layer in layers.items():
            own = carried[path]
            quotient = layer.scale / own.scale
            own.down.copy_(layer.down)
            same = math.isclose(quotient, 1, rel_tol=1e-12)
            own.up.copy_(layer.up if same else layer.up.float() * quotient)


def adapter_layers(network: torch.nn.Module, adapter: str) -> Iterator[tuple[str, Layer]]:
    """Yield an adapter's layers as they act, by path in transformers 4.

    Args:
        network: A denoiser or text encoder.
        adapter: Name of an adapter; a network without it has no layers.
    """
    from peft.tuners.lora import LoraLayer

    prefix = CLIP_PREFIX if flattened(network) else ""
    for path, each in network.named_modules():
        if isinstance(each, LoraLayer) and adapter in each.lora_A:
            down, up = (factor[adapter].weight for factor in (each.lora_A, each.lora_B))
            yield prefix + path, Layer(down, up, each.scaling[adapter] * len(down))


def fuse(
    network: torch.nn.Module, layers: Mapping[str, Layer], replaced: Replaced | None = None
) -> None:
    """Add updates to weights: `W + alpha / rank * up @ down` in float32, rounded once.

    In half precision the factors, their product and the sum would each be rounded. LoRAs on one
    another are to be summed (`layers.summed`) before, for the same reason.

    Args:
        network: In any precision, on any device.
        layers: By path.
        replaced: Gets the weights' values before; where it has them, they stay.

    Raises:
        TastemakerError: A layer is none of the network's, or has another shape.
    """
    modules = dict(network.named_modules())
    prefix = CLIP_PREFIX if flattened(network) else ""
    with torch.no_grad():
        for path, layer in layers.items():
            module = modules.get(path.removeprefix(prefix))
            weight: Any = getattr(module, "weight", None)
            if (
                weight is None
                or layer.down.shape[1:] != weight.shape[1:]
                or len(layer.up) != len(weight)
            ):
                raise TastemakerError(
                    f"a LoRA below does not fit {type(network).__name__}: {path} of"
                    f" {tuple(layer.up.shape)} times {tuple(layer.down.shape)}. Take the base that"
                    " it belongs to."
                )
            up, down = (
                each.to(weight.device).float().flatten(1) for each in (layer.up, layer.down)
            )
            update = (layer.scale * (up @ down)).view_as(weight)
            if replaced is not None:
                replaced.setdefault(weight, weight.clone())
            weight.copy_(weight.float() + update)


def _form(shapes: Mapping[str, tuple[torch.Size, torch.Size]]) -> str:
    ranks = sorted({down[0] for down, _ in shapes.values()})
    return f"{len(shapes)} layers of rank {', '.join(map(str, ranks)) or 'none'}"
