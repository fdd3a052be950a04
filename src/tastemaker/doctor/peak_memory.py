"""Peak memory of sampling and of each training, by running their own code without weights."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

import torch

from tastemaker.backbones import Backbone, Conditioning, SamplingBatch
from tastemaker.backbones.gradient_sampling import guided_step, unroll
from tastemaker.backbones.lora.adapters import add_lora
from tastemaker.backbones.meta_device import load_skeleton
from tastemaker.backbones.staged import keep_parts
from tastemaker.backbones.tokens import TEXT
from tastemaker.config.evaluation import EvaluateConfig
from tastemaker.config.personalization import WHOLE, PersonalizeConfig
from tastemaker.config.training import RewardTrainConfig, TrainConfig
from tastemaker.core.hardware import torch_dtype
from tastemaker.doctor.live_bytes import LiveBytes, module_bytes, pipeline_bytes
from tastemaker.training.batches import NoisyBatch, mean_square, residual
from tastemaker.training.encoding import images_at_once
from tastemaker.training.optimization import trainable_parameters
from tastemaker.training.personalization.parameters import free_denoiser, free_text
from tastemaker.training.preference.objective import FrozenCopy, errors_of
from tastemaker.training.preference.parameters import add_text_adapters, make_trainable

Size = tuple[int | None, int | None]
"""Height and width in pixels; None for the model's own."""


@dataclass(frozen=True)
class Need:
    """Memory that a section of a run needs.

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


def sampling(path: str, config: Any) -> Need:
    """Encoding prompts, denoising and decoding, with all networks in memory."""
    model = config.base if isinstance(config, EvaluateConfig) else config.model
    backbone = load_skeleton(model, config.dtype)
    images = config.batch_size * (2 if backbone.guidance_scale(config.guidance_scale) > 1 else 1)
    shape = backbone.latent_shape(config.height, config.width)
    dtype = torch_dtype(config.dtype)
    with torch.device("meta"), torch.no_grad(), LiveBytes() as live:
        conditioning = _embeddings(backbone, images, dtype)
        latents = torch.empty(images, *shape, dtype=dtype)
        backbone.predict(backbone.denoiser, latents, _timesteps(images), conditioning)
        del conditioning
        backbone.vae.decode_pixels(latents[: config.batch_size])
    return _need(path, backbone, (), pipeline_bytes(backbone), live.peak)


def training(path: str, config: TrainConfig, size: Size) -> Need:
    """The largest of three: encoding images, encoding prompts, and a step with what trains."""
    backbone = _loaded(config, config.method)
    # A LoRA that is carried on, and its frozen copy, are the size of one that begins.
    copied = config.method == "full" or config.reference == "frozen_copy"
    alone = "frozen_copy" if copied else "adapters_off"
    config = config.model_copy(update={"start": None, "reference": alone})
    images = 2 * config.batch_size
    with torch.device("meta"):
        add_text_adapters(config, backbone)
    trains = backbone.text_parts if config.text_lora is not None else ()
    stays = tuple(backbone.networks) if config.validation.steps else trains
    encoding, conditioning = _encoding(backbone, images, size, stays)
    keep_parts(backbone, (backbone.part, *stays))
    backbone.prepare_training(config.dtype)
    with torch.device("meta"):
        reference = make_trainable(config, backbone)
    text = [getattr(backbone.pipeline, name) for name in trains]
    batch = _batch(backbone, images, size, conditioning, text_trains=bool(text))
    trained = trainable_parameters(backbone.denoiser, text)
    held = pipeline_bytes(backbone)
    if isinstance(reference, FrozenCopy):
        held += sum(map(module_bytes, (reference.denoiser, *reference.text_encoders)))
    with torch.device("meta"), LiveBytes() as live:
        # The reference's pass keeps nothing but this, and takes no more than the policy's.
        known = torch.empty_like(batch.target)
        predicted = residual(backbone, backbone.denoiser, batch, text)
        errors_of(predicted, known).margin.mean().backward()
    return _need(path, backbone, trained.values(), held, live.peak, encoding)


def personalisation(path: str, config: PersonalizeConfig) -> Need:
    """As `training`, on photographs and as many class images, without a reference."""
    backbone = _loaded(config, config.method)
    images = config.batch_size * (1 if config.prior is None else 2)
    size = (config.resolution, config.resolution)
    with torch.device("meta"):
        free_text(config, backbone)
    text = backbone.text_encoders if config.trains_text else []
    stays = backbone.text_parts if text else ()
    encoding, conditioning = _encoding(backbone, images, size, stays)
    keep_parts(backbone, (backbone.part, *stays))
    backbone.prepare_training(config.dtype)
    with torch.device("meta"):
        free_denoiser(config, backbone)
    batch = _batch(backbone, images, size, conditioning, text_trains=bool(text))
    trained = trainable_parameters(backbone.denoiser, text)
    held = pipeline_bytes(backbone)
    with torch.device("meta"), LiveBytes() as live:
        mean_square(residual(backbone, backbone.denoiser, batch, text)).mean().backward()
    return _need(path, backbone, trained.values(), held, live.peak, encoding)


def reward(path: str, config: RewardTrainConfig) -> Need:
    """Sampling with a graph through the last steps, decoding, and back; without the scorer."""
    backbone = load_skeleton(config.model, config.dtype)
    images = config.batch_size
    conditioning = {
        name: value.detach() for name, value in _embeddings(backbone, images, None).items()
    }
    backbone.prepare_training(config.dtype)
    with torch.device("meta"):
        add_lora(backbone.denoiser, config.lora, config.seed)
    backbone.denoiser.train()
    trained = trainable_parameters(backbone.denoiser)
    held = pipeline_bytes(backbone)

    def predict(
        noisy: torch.Tensor, timestep: torch.Tensor, conditioning: Conditioning
    ) -> torch.Tensor:
        return backbone.predict(backbone.denoiser, noisy, timestep.expand(len(noisy)), conditioning)

    with torch.device("meta"), LiveBytes() as live:
        drawing = SamplingBatch(
            conditioning,
            conditioning,
            range(images),
            num_inference_steps=config.num_inference_steps,
            guidance_scale=config.guidance_scale,
        )
        step = guided_step(predict, _Sampler(), drawing)
        noise = torch.empty(images, *backbone.latent_shape(None, None))
        # One step without graph is enough: they keep nothing.
        timesteps = torch.zeros(config.keep + 1, dtype=torch.long)
        checkpointing = config.gradient_checkpointing
        latents = unroll(step, noise, timesteps, keep=config.keep, checkpointing=checkpointing)
        backbone.vae.decode_pixels(latents).mean().backward()
    return _need(path, backbone, trained.values(), held, live.peak)


class _Sampler:
    """A scheduler's step as far as memory goes: which numbers come out does not matter."""

    def step(
        self, prediction: torch.Tensor, timestep: Any, latents: torch.Tensor, **_: Any
    ) -> tuple[torch.Tensor]:
        return (latents - prediction,)


def _loaded(config: Any, method: str) -> Backbone:
    return load_skeleton(config.model, "fp32" if method in WHOLE else config.dtype)


def _dtype(backbone: Backbone) -> torch.dtype:
    return next(backbone.denoiser.parameters()).dtype


def _encoding(
    backbone: Backbone, images: int, size: Size, stays: Collection[str]
) -> tuple[int, Conditioning]:
    """Bytes while images or prompts are encoded, by turns, and what the prompts became.

    Args:
        backbone: The model.
        images: Per batch of the training.
        size: Of the images.
        stays: Names of the networks that are in memory all the time.
    """
    with torch.device("meta"), LiveBytes() as text:
        conditioning = _embeddings(backbone, images, _dtype(backbone))
    with torch.device("meta"), LiveBytes() as vae:
        scale = backbone.pipeline.vae_scale_factor
        height, width = (side * scale for side in backbone.latent_shape(*size)[1:])
        backbone.vae.encode(torch.empty(images_at_once(height * width), 3, height, width))
    networks = backbone.networks
    encoders = [name for name in networks if name.startswith(TEXT)]
    peak = max(
        live.peak + sum(module_bytes(networks[name]) for name in {*names, *stays})
        for names, live in ((encoders, text), (("vae",), vae))
    )
    return peak, {name: value.detach() for name, value in conditioning.items()}


def _batch(
    backbone: Backbone, images: int, size: Size, conditioning: Conditioning, *, text_trains: bool
) -> NoisyBatch:
    tokens = None
    if text_trains:
        tokens = {
            name: value.to("meta").expand(images, -1)
            for name, value in backbone.tokenize(["a prompt"]).items()
        }
    with torch.device("meta"):
        latents = torch.empty(images, *backbone.latent_shape(*size), dtype=_dtype(backbone))
        return NoisyBatch(latents, _timesteps(images), latents, conditioning, tokens)


def _embeddings(backbone: Backbone, images: int, dtype: torch.dtype | None) -> Conditioning:
    """Embeddings of a prompt for each image."""
    one = backbone.encode_prompts(["a prompt"])
    return {
        name: value.to(dtype or value.dtype).expand(images, *value.shape[1:]).contiguous()
        for name, value in one.items()
    }


def _timesteps(images: int) -> torch.Tensor:
    return torch.zeros(images, dtype=torch.long, device="meta")


def _need(
    path: str,
    backbone: Backbone,
    trained: Iterable[torch.Tensor],
    held: int,
    live: int,
    encoding: int = 0,
) -> Need:
    """Add to the networks a step's tensors and Adam's moments, there from the second step on."""
    weights = list(trained)
    moments = 2 * sum(each.nbytes for each in weights)
    count = sum(each.numel() for each in weights)
    peak = max(encoding, held + moments + live)
    return Need(path, type(backbone.pipeline).__name__, count, held, peak)
