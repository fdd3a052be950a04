"""Models without weights: the real networks on torch's device `meta`.

Operations compute shapes alone, so that a model of any size is inspected in seconds.
"""

from __future__ import annotations

import importlib
from typing import Any

import torch

from tastemaker.backbones.base import Backbone
from tastemaker.backbones.loading import backbone_class, hide_bars, left_out, unreadable
from tastemaker.backbones.places import resolve, root_of
from tastemaker.core.hardware import torch_dtype


def load_skeleton(model: str, dtype: str = "fp32") -> Backbone:
    """Load a model as `load_backbone` does, from its configuration alone.

    Args:
        model: A registered name, a hub id, a pipeline folder or a trained LoRA folder, of which the
            base is taken: a LoRA adds little.
        dtype: "fp32", "bf16" or "fp16".

    Returns:
        The backbone, on `meta`.

    Raises:
        TastemakerError: The model is missing, broken, or of an unknown family.
    """
    from diffusers import DiffusionPipeline

    model = root_of(model)
    kind = backbone_class(model)
    place = resolve(model)
    hide_bars()
    try:
        parts = networks(place)
        if dtype != "fp32":
            for network in parts.values():
                network.to(torch_dtype(dtype))
        pipeline = DiffusionPipeline.from_pretrained(place, **parts, **left_out(place))
    except Exception as error:  # whatever the libraries stumble over in files of others
        raise unreadable(model, error) from error
    backbone: Backbone = kind(model, pipeline)
    return backbone


def networks(place: str) -> dict[str, Any]:
    """Build the networks of a pipeline, by name, on `meta`.

    Args:
        place: Hub id or pipeline folder.

    Returns:
        Denoiser, autoencoder and text encoders.
    """
    from diffusers import DiffusionPipeline

    found: dict[str, Any] = {}
    for name, entry in DiffusionPipeline.load_config(place).items():
        library = entry[0] if isinstance(entry, (list, tuple)) else None
        if library not in ("diffusers", "transformers") or name in left_out(place):
            continue
        kind = getattr(importlib.import_module(entry[0]), entry[1])
        if not issubclass(kind, torch.nn.Module):
            continue
        with torch.device("meta"):
            if entry[0] == "diffusers":
                found[name] = kind.from_config(kind.load_config(place, subfolder=name))
            else:
                options = kind.config_class.from_pretrained(place, subfolder=name)
                found[name] = kind(options)
    return found
