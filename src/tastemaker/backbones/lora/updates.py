"""The updates of a LoRA file on a network: as an adapter that trains, or among its weights."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from tastemaker.backbones.lora.diffusers_file import OUTER, flattened
from tastemaker.backbones.lora.layers import Layer
from tastemaker.core.errors import TastemakerError


def load_lora(module: Any, adapter: str, layers: Mapping[str, Layer], folder: Path) -> None:
    """Give an adapter that is put on the update of a file.

    Where the file's scale is not the adapter's (another alpha, rank-stabilised, a pattern), the
    second factor takes the quotient, so that training goes on from the same model.

    Args:
        module: The network that carries the adapter.
        adapter: Its name.
        layers: The file's for this network, by path.
        folder: Where they are from, for messages.

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

    prefix = OUTER if flattened(network) else ""
    for path, each in network.named_modules():
        if isinstance(each, LoraLayer) and adapter in each.lora_A:
            down, up = (factor[adapter].weight for factor in (each.lora_A, each.lora_B))
            yield prefix + path, Layer(down, up, each.scaling[adapter] * len(down))


def fuse(network: torch.nn.Module, layers: Mapping[str, Layer]) -> None:
    """Add updates to weights: `W + alpha / rank * up @ down` in float32, rounded once.

    In half precision the factors, their product and the sum would each be rounded. LoRAs on one
    another are to be summed (`layers.summed`) before, for the same reason.

    Args:
        network: In any precision, on any device.
        layers: By path.

    Raises:
        TastemakerError: A layer is none of the network's, or has another shape.
    """
    modules = dict(network.named_modules())
    with torch.no_grad():
        for path, layer in layers.items():
            module = modules.get(own_path(network, path))
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
            weight.copy_(weight.float() + update)


def own_path(network: torch.nn.Module, path: str) -> str:
    """A layer's path in a network as this transformers has it."""
    return path.removeprefix(OUTER) if flattened(network) else path


def _form(shapes: Mapping[str, tuple[torch.Size, torch.Size]]) -> str:
    ranks = sorted({down[0] for down, _ in shapes.values()})
    return f"{len(shapes)} layers of rank {', '.join(map(str, ranks)) or 'none'}"
