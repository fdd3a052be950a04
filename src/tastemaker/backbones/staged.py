"""Models whose weights are read part by part: each when it is needed, and freed after that."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Collection, Iterator

import torch

from tastemaker.backbones.autoencoder import Autoencoder
from tastemaker.backbones.base import Backbone
from tastemaker.backbones.checks import check_model
from tastemaker.backbones.loading import add_adapters, lay_out, read_pipeline
from tastemaker.backbones.places import root_of
from tastemaker.core.hardware import check_dtype, torch_device, torch_dtype


def load_staged(model: str, *, device: str = "auto", dtype: str = "fp32") -> Backbone:
    """Load a model without its weights, for `load_parts` and `in_memory`.

    Once read, each part is that of `load_backbone(..., fused=True)`, bit for bit.

    Args:
        model: As of `load_backbone`.
        device: The same.
        dtype: The same.

    Returns:
        The backbone, its networks on `meta`, in their precision.

    Raises:
        TastemakerError: The model is missing, broken, or of an unknown family.
    """
    target = torch_device(device)
    check_dtype(target, dtype)
    skeleton = check_model(model)
    # Networks that are not cast are never changed, only replaced: copying them takes .1 s.
    shared = {id(each): each for each in skeleton.networks.values()} if dtype == "fp32" else {}
    backbone = copy.deepcopy(skeleton, shared)
    for network in backbone.networks.values() if dtype != "fp32" else ():
        torch.nn.Module.to(network, torch_dtype(dtype))  # diffusers' own warns of any cast
    backbone.vae = Autoencoder(model, backbone.pipeline.vae)
    backbone.name, backbone.staged_on = model, target
    return backbone


def load_parts(backbone: Backbone, names: Collection[str]) -> list[str]:
    """Read networks of a staged model, with the LoRAs and learned words below.

    Args:
        backbone: Of `load_staged`; any other stays as it is.
        names: The pipeline's names; text encoders that learn words are read together.

    Returns:
        The names of those that were read: they were not there.

    Raises:
        TastemakerError: A file or an adapter does not fit, or cannot be read.
    """
    networks = backbone.networks
    missing = [each for each in names if next(networks[each].parameters()).is_meta]
    if backbone.staged_on is None or not missing:
        return []
    pipeline, dtype = backbone.pipeline, backbone.denoiser.dtype
    given = {name: each for name, each in pipeline.components.items() if name not in missing}
    loaded = read_pipeline(root_of(backbone.name), type(backbone), dtype, **given)
    for name in missing:
        setattr(pipeline, name, getattr(loaded, name).to(backbone.staged_on))
    if "vae" in missing:
        backbone.vae = Autoencoder(backbone.name, pipeline.vae)
    if "unet" in missing:
        lay_out(pipeline.unet, backbone.staged_on.type)
    add_adapters(backbone, backbone.name, fused=True, parts=missing)
    return missing


def keep_parts(backbone: Backbone, names: Collection[str]) -> None:
    """Free all other networks, and read those of these that are not there yet.

    Args:
        backbone: The model.
        names: The pipeline's names of what is needed from now on.
    """
    free_parts(backbone, [each for each in backbone.networks if each not in names])
    load_parts(backbone, names)


@contextlib.contextmanager
def in_memory(backbone: Backbone, names: Collection[str]) -> Iterator[None]:
    """Have parts of a model there for a while; those that were not are freed at the end."""
    read = load_parts(backbone, names)
    yield
    free_parts(backbone, read)


def free_parts(backbone: Backbone, names: Collection[str]) -> None:
    """Free networks; the pipeline keeps None in their place."""
    for name in names:
        setattr(backbone.pipeline, name, None)
        if name == "vae":
            del backbone.vae
    if names and backbone.device.type == "cuda":
        torch.cuda.empty_cache()
