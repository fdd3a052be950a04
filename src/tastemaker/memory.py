"""How much memory each room of a run takes at its peak, worked out on networks without weights.

The rooms' own code runs on torch's device `meta`, where operations have shapes and no numbers, and
what is alive is added up. What the libraries themselves take, about half a gigabyte, is not in it.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from tastemaker.backbones import Backbone, Conditioning
from tastemaker.backbones.skeleton import load_skeleton
from tastemaker.hardware import memory, torch_device, torch_dtype
from tastemaker.runs import RunConfig
from tastemaker.sections import EvaluateConfig, SamplingConfig, Section
from tastemaker.train.data import NoisyBatch
from tastemaker.train.networks import add_text_adapters, make_trainable, weights
from tastemaker.train.objective import errors_of, residuals_of
from tastemaker.train.optimisation import adamw
from tastemaker.training_sections import TrainConfig

LIBRARIES = 500_000_000
"""Bytes of a process that has imported torch, diffusers and transformers."""


@dataclass(frozen=True)
class Need:
    """What a section of a run takes.

    Attributes:
        section: Its path in the configuration.
        pipeline: diffusers' class of the model.
        trains: Parameters that train; 0 where images are drawn.
        weights: Bytes of the networks.
        peak: Bytes at the peak, the networks included.
    """

    section: str
    pipeline: str
    trains: int
    weights: int
    peak: int


class LiveBytes(TorchDispatchMode):
    """Adds up the tensors that the operations inside make, as long as they are alive.

    Attributes:
        peak: Most bytes at once.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live, self.peak = 0, 0
        self._sizes: dict[int, int] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        for each in tree_iter(made):
            if isinstance(each, torch.Tensor):
                self._see(each.untyped_storage())
        return made

    def _see(self, storage: torch.UntypedStorage) -> None:
        name = storage._cdata
        if name in self._sizes:
            return
        self._sizes[name] = storage.nbytes()
        self.live += storage.nbytes()
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._forget, name)

    def _forget(self, name: int) -> None:
        self.live -= self._sizes.pop(name, 0)


def needs(config: Section) -> list[Need]:
    """Work out what every section of a run takes that draws images or trains on pairs.

    Args:
        config: The run. Models that it makes itself count as their base.

    Returns:
        One need a section, in the order of the configuration. Sections whose scorer is propagated
        through, and personalisation, are not worked out.

    Raises:
        TastemakerError: A model is missing or of an unknown family.
    """
    found = []
    size = _drawn_size(config)
    for path, section in _sections(config):
        if isinstance(section, TrainConfig):
            found.append(_training(path, section, size))
        elif isinstance(section, SamplingConfig):
            found.append(_drawing(path, section))
    return found


def table(config: RunConfig) -> str:
    """Write what a run needs as text, and whether it can work on this machine.

    Args:
        config: The run.

    Returns:
        One line a section, then the verdict.
    """
    found = needs(config)
    lines = [f"{'section':<24}{'model':<28}{'trains':>14}{'weights':>10}{'peak':>10}"]
    for each in found:
        trains = f"{each.trains:,}" if each.trains else ""
        sizes = f"{_gigabytes(each.weights):>10}{_gigabytes(each.peak):>10}"
        lines.append(f"{each.section:<24}{each.pipeline:<28}{trains:>14}{sizes}")
    most = max(found, key=lambda each: each.peak)
    there = memory(config.device)
    lines.append(f"\nWithout what the libraries take, about {_gigabytes(LIBRARIES)}, and scorers.")
    if there is None:
        lines.append("How much memory this machine has is not known.")
    elif most.peak + LIBRARIES <= there:
        lines.append(f"It fits: this machine has {_gigabytes(there)}.")
    else:
        lines.append(
            f"It does not fit: {most.section} needs {_gigabytes(most.peak)}, this machine has"
            f" {_gigabytes(there)}. Lower {most.section}.batch_size, or set precision=bf16 (dtype"
            " where images are drawn), gradient_checkpointing=true, method=lora."
        )
    return "\n".join(lines)


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.2f} GB"


def _sections(config: Section, prefix: str = "") -> Iterator[tuple[str, Section]]:
    for name in type(config).model_fields:
        value = getattr(config, name)
        if isinstance(value, (TrainConfig, SamplingConfig)):
            yield prefix + name, value
        elif isinstance(value, Section):
            yield from _sections(value, f"{prefix}{name}.")


def _drawn_size(config: Section) -> tuple[int | None, int | None]:
    """Height and width of the images that are trained on, where the run draws them itself."""
    for _, section in _sections(config):
        if isinstance(section, SamplingConfig) and not isinstance(section, EvaluateConfig):
            return section.height, section.width
    return None, None


def _drawing(path: str, config: Any) -> Need:
    """Encoding prompts, denoising and decoding, with all networks in memory."""
    model = config.base if isinstance(config, EvaluateConfig) else config.model
    backbone = load_skeleton(model, config.dtype)
    images = config.batch_size * (2 if config.guidance_scale > 1 else 1)
    shape = backbone.latent_shape(config.height, config.width)
    dtype = torch_dtype(config.dtype)
    with torch.device("meta"), torch.no_grad(), LiveBytes() as live:
        told = _told(backbone, images, dtype)
        latents = torch.empty(images, *shape, dtype=dtype)
        backbone.predict(backbone.denoiser, latents, _timesteps(images), told)
        del told
        backbone.decode_pixels(latents[: config.batch_size])
    held = _bytes(backbone)
    return Need(path, type(backbone.pipeline).__name__, 0, held, held + live.peak)


def _training(path: str, config: TrainConfig, size: tuple[int | None, int | None]) -> Need:
    """The larger of two: encoding with all networks, and a step with what trains alone."""
    dtype = "fp32" if config.method == "full" else config.precision
    backbone = load_skeleton(config.model, dtype)
    # A LoRA that is carried on, and its frozen copy, are the size of one that begins.
    alone = "frozen_copy" if config.reference == "frozen_copy" else "adapters_off"
    config = config.model_copy(update={"start": None, "reference": alone})
    shape = backbone.latent_shape(*size)
    images = 2 * config.batch_size
    with torch.device("meta"), LiveBytes() as cached:
        add_text_adapters(config, backbone)
        told = _told(backbone, images, torch_dtype(dtype))
        height, width = (side * backbone.pipeline.vae_scale_factor for side in shape[1:])
        backbone.encode_images(torch.empty(1, 3, height, width))
    encoding = _bytes(backbone) + cached.peak
    backbone.release_encoders(keep_text=config.text_lora is not None)
    backbone.prepare_training(torch_device(config.device))
    with torch.device("meta"):
        reference = make_trainable(config, backbone)
        latents = torch.empty(images, *shape, dtype=torch_dtype(dtype))
        batch = NoisyBatch(latents, _timesteps(images), latents, told)
    trained = weights(config, backbone)
    held = _bytes(backbone) + _module_bytes(getattr(reference, "denoiser", None))
    optimizer = adamw(trained.values(), config)
    with torch.device("meta"), LiveBytes() as live:
        conditioning = _live(config, backbone, told, images)
        residuals = residuals_of(backbone, backbone.denoiser, reference, batch, conditioning)
        errors_of(residuals).margin.mean().backward()
        del residuals
        optimizer.step()
    count = sum(value.numel() for value in trained.values())
    peak = max(encoding, held + live.peak)
    return Need(path, type(backbone.pipeline).__name__, count, held, peak)


def _live(
    config: TrainConfig, backbone: Backbone, told: Conditioning, images: int
) -> Conditioning | None:
    """Embeddings with their graph, where text encoders train."""
    if config.text_lora is None:
        return None
    tokens = {
        name: value.to("meta").expand(images, -1)
        for name, value in backbone.tokenize(["a prompt"]).items()
    }
    return {**told, **backbone.embed(backbone.text_encoders, tokens, told)}


def _told(backbone: Backbone, images: int, dtype: torch.dtype) -> Conditioning:
    """Embeddings of a prompt for each image."""
    one = backbone.encode_prompts(["a prompt"])
    return {
        name: value.to(dtype).expand(images, *value.shape[1:]).contiguous()
        for name, value in one.items()
    }


def _timesteps(images: int) -> torch.Tensor:
    return torch.zeros(images, dtype=torch.long, device="meta")


def _bytes(backbone: Backbone) -> int:
    return sum(
        _module_bytes(part)
        for part in backbone.pipeline.components.values()
        if isinstance(part, torch.nn.Module)
    )


def _module_bytes(module: torch.nn.Module | None) -> int:
    if module is None:
        return 0
    tensors = {id(each): each for each in (*module.parameters(), *module.buffers())}
    return sum(each.numel() * each.element_size() for each in tensors.values())
