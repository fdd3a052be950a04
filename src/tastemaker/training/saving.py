"""A trained model as a folder: a LoRA with the name of its base, or a whole pipeline."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from tastemaker.backbones import Backbone, load_backbone
from tastemaker.backbones.lora.adapters import ADAPTER
from tastemaker.backbones.lora.weights import fuse_attached, save_adapter
from tastemaker.backbones.places import name_base


def save_lora(backbone: Backbone, base: str, output: Path) -> None:
    """Write the LoRA that trained, and beside it the name of the base that it belongs to.

    Args:
        backbone: The model that carries it.
        base: Name, hub id or folder of the model that it was put on.
        output: The folder, afterwards usable as `model` anywhere.
    """
    save_adapter(backbone, output, ADAPTER)
    name_base(base, output)


def save_whole(
    base: str,
    output: Path,
    denoiser: torch.nn.Module,
    text_encoders: Sequence[torch.nn.Module] = (),
) -> None:
    """Put networks of which all weights trained into the pipeline that they are from, and save it.

    Args:
        base: What training started from: its other parts, long out of memory, are loaded again.
        output: The folder, afterwards usable as `model` anywhere.
        denoiser: As trained, unwrapped.
        text_encoders: The same, where they trained; else none.
    """
    whole = load_backbone(base, device="cpu")
    fuse_attached(whole)
    whole.denoiser.load_state_dict(denoiser.state_dict())
    for encoder, trained in zip(whole.text_encoders, text_encoders, strict=False):
        encoder.load_state_dict(trained.state_dict())
    whole.save_pipeline(output)
