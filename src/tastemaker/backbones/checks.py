"""Checks of a model and of sampling options that need no weights."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from pathlib import Path

from tastemaker.backbones.base import Backbone
from tastemaker.backbones.compilation import check_compile
from tastemaker.backbones.ip_adapter import check_ip_adapter
from tastemaker.backbones.loading import backbone_class
from tastemaker.backbones.parts import student, variant_of
from tastemaker.backbones.places import INDEX, adapter_chain, read_part, resolve, root_of
from tastemaker.backbones.schedulers import set_scheduler
from tastemaker.config.sections import SamplingConfig
from tastemaker.core.errors import TastemakerError
from tastemaker.core.hardware import check_dtype, memory, torch_device, torch_dtype

Size = tuple[int | None, int | None]
"""Height and width in pixels; None for the model's own."""


def check_model(
    model: str, sizes: Iterable[Size] = (), *, scheduler: str | None = None
) -> Backbone:
    """Refuse a model that is not understood, by its configuration files alone.

    Args:
        model: A registered name, a hub id, a pipeline folder or a trained LoRA folder, of which the
            base is looked at.
        sizes: Sizes of images that it will sample or be trained on.
        scheduler: Class name of a diffusers scheduler; None keeps the model's own.

    Returns:
        The model without weights, as `load_skeleton` returns it; shared, do not change it.

    Raises:
        TastemakerError: The model is missing, broken, or not understood; a size is not one of its
            family's.
    """
    root = root_of(model)
    backbone = _understood(root, scheduler, _files(Path(resolve(root))))
    for height, width in sizes:
        backbone.latent_shape(height, width)
    return backbone


def _files(place: Path) -> tuple[tuple[int, ...], ...]:
    """Inode, size and time of every file of a pipeline's folder; empty for a hub id."""
    files = (file for depth in ("*", "*/*") for file in place.glob(depth) if file.is_file())
    stats = (file.stat() for file in sorted(files))
    return tuple((each.st_ino, each.st_size, each.st_mtime_ns) for each in stats)


@functools.lru_cache(maxsize=8)  # every section checks its model, and every command again
def _understood(model: str, scheduler: str | None, files: tuple[tuple[int, ...], ...]) -> Backbone:
    """The skeleton of the pipeline that has these files."""
    from tastemaker.backbones.meta_device import load_skeleton

    if files:
        place = resolve(model)
        variant_of(Path(place), backbone_class(place))
    backbone = load_skeleton(model)
    if scheduler:
        set_scheduler(backbone, scheduler)
    return backbone


def check_sampling(config: SamplingConfig, model: str, sizes: Iterable[Size] = ()) -> None:
    """Refuse sampling options that do not suit a model or this machine.

    Args:
        config: Sampling options.
        model: As of `check_model`.
        sizes: Sizes of the images, if the options name none.

    Raises:
        TastemakerError: The model is not understood, or an option does not suit it.
    """
    check_dtype(torch_device(config.device), config.dtype)
    backbone = check_model(model, scheduler=config.scheduler)
    if config.torch_compile:
        check_compile(backbone.denoiser, torch_device(config.device))
    for height, width in tuple(sizes) or ((None, None),):
        shape = backbone.latent_shape(config.height or height, config.width or width)
        check_steps(backbone, config.num_inference_steps, shape)
        _check_memory(config, backbone, shape)
    if config.negative_prompt and not backbone.takes_negative:
        raise TastemakerError(
            f"{model} takes no negative prompt: guidance is one of its inputs; leave"
            " negative_prompt out."
        )
    if config.ip_adapter is not None:
        check_ip_adapter(config.ip_adapter, backbone)


def check_steps(backbone: Backbone, num_inference_steps: int, shape: Sequence[int]) -> None:
    """Refuse a number of denoising steps that a model's sampler cannot take.

    Args:
        backbone: The model.
        num_inference_steps: Denoising steps.
        shape: Shape of the latents, which shifts a flow's noise levels.

    Raises:
        TastemakerError: There are fewer timesteps, or the sampler refuses.
    """
    reason = f"{backbone.name} has {backbone.num_timesteps} timesteps"
    if num_inference_steps <= backbone.num_timesteps:
        try:
            backbone.grid(num_inference_steps, shape)
            return
        except ValueError as error:
            reason = f"{type(backbone.pipeline.scheduler).__name__}: {error}"
    raise TastemakerError(f"num_inference_steps={num_inference_steps} is too many: {reason}.")


def _check_memory(config: SamplingConfig, backbone: Backbone, shape: Sequence[int]) -> None:
    """Refuse images that cannot be decoded here: a lower bound, two of the decoder's last layers.

    `bytes >= 2 * batch_size * height * width * channels * bytes of a number`.
    """
    given = memory(config.device)
    channels = int(backbone.pipeline.vae.config.block_out_channels[0])
    high, wide = (side * backbone.pipeline.vae_scale_factor for side in shape[1:])
    itemsize = torch_dtype(config.dtype).itemsize
    least = 2 * config.batch_size * high * wide * channels * itemsize
    if given is not None and least > given:
        raise TastemakerError(
            f"batch_size={config.batch_size} images of {high} x {wide} pixels take"
            f" {least / 1e9:.0f} GB at least, and there are {given / 1e9:.0f} GB; lower height and"
            " width, or batch_size."
        )


def student_warning(model: str | Backbone) -> str | None:
    """Return a warning for training a model that was distilled to a few steps.

    Args:
        model: As of `check_model`, or a loaded pipeline's backbone.

    Returns:
        A sentence; None without a sign of distillation.
    """
    if isinstance(model, Backbone):
        root, configs = model.name, (model.pipeline.config, model.denoiser.config)
        sign = student([root], *configs, type(model))
    else:
        adapters, root = adapter_chain(model)
        place, family = resolve(root), backbone_class(root)
        config = read_part(place, f"{family.part}/config.json")
        sign = student([root, *map(str, adapters)], read_part(place, INDEX), config, family)
    if sign is None:
        return None
    return (
        f"{root} looks like a model distilled to a few steps ({sign}): training on noisy latents"
        " undoes the distillation, and its few-step images fall apart. Train the model that it was"
        " distilled from; the LoRA can be stacked on this one."
    )
