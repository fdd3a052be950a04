"""What diffusers' pipelines have in common: prompts, autoencoder, LoRA files, how images begin."""

from __future__ import annotations

import contextlib
import inspect
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import diffusers
import torch
from diffusers.loaders.lora_base import LORA_WEIGHT_NAME_SAFE
from diffusers.utils.torch_utils import randn_tensor
from PIL import Image

from tastemaker.backbones.autoencoder import Autoencoder
from tastemaker.backbones.base import Backbone
from tastemaker.backbones.conditioning import Conditioning, stack
from tastemaker.backbones.drawing import Drawing
from tastemaker.backbones.gradient_sampling import Step, guided_step, unroll
from tastemaker.backbones.loading import resolve, root_of
from tastemaker.backbones.lora.diffusers_file import (
    LORA_FILE,
    POLICY,
    lora_layers,
    lora_metadata,
    part_of,
)
from tastemaker.backbones.lora.layers import Layer, Layers, read_layers, read_tensors
from tastemaker.backbones.lora.switches import OUTSIDE, switch_lora, text_range_arguments
from tastemaker.backbones.lora.updates import adapter_layers, fuse, load_lora
from tastemaker.backbones.parts import latent_units
from tastemaker.backbones.precision import keep_in_fp32
from tastemaker.backbones.schedulers import sampler
from tastemaker.backbones.textual_inversion import refuse_token
from tastemaker.config.sections import AdapterConfig
from tastemaker.core.errors import TastemakerError, nearest
from tastemaker.storage.files import sort_header, written_folder

TEXT = "text_encoder"
"""How the names of a pipeline's text encoders begin."""


class PipelineBackbone(Backbone):
    """A diffusers pipeline; what is left to a family is its denoiser, its prompts and its sampler.

    Args:
        name: What it was loaded from, for records and messages.
        pipeline: The loaded pipeline, on its device.
    """

    part: ClassVar[str]
    """The pipeline's name of the network that is trained."""

    last: ClassVar[str]
    """That network's name of its last layer."""

    text_parts: ClassVar[tuple[str, ...]] = (TEXT,)
    """Its names of the text encoders that a LoRA may train on."""

    samplers: ClassVar[tuple[str, ...]]
    """Classes of its samplers."""

    def __init__(self, name: str, pipeline: Any) -> None:
        self.name = name
        self.pipeline = pipeline
        self.text_range: tuple[int, int] | None = None
        self.attached: Path | None = None
        self.vae = Autoencoder(name, pipeline.vae)
        _limit_tokenizers(pipeline)
        pipeline.set_progress_bar_config(disable=True)

    @property
    def denoiser(self) -> Any:
        denoiser: Any = getattr(self.pipeline, self.part)
        return denoiser

    @property
    def device(self) -> torch.device:
        device: torch.device = getattr(self.pipeline, self.part).device
        return device

    @property
    def size(self) -> int:
        return min(self._sides)

    @property
    def _sides(self) -> tuple[int, int]:
        """Height and width in pixels of what the model was made to draw."""
        given = getattr(self.denoiser.config, "sample_size", None)
        if given is None:
            given = getattr(self.pipeline, "default_sample_size", None)
        if given is None:
            raise TastemakerError(
                f"{self.name} names no size of its own (sample_size); give height and width."
            )
        high, wide = given if isinstance(given, (list, tuple)) else (given, given)
        factor = self.pipeline.vae_scale_factor
        return int(high * factor), int(wide * factor)

    @property
    def grain(self) -> int:
        """Pixels that height and width are multiples of."""
        return int(self.pipeline.vae_scale_factor)

    def guidance_scale(self, given: float | None) -> float:
        if given is not None:
            return given
        parameters = inspect.signature(type(self.pipeline).__call__).parameters
        return float(parameters["guidance_scale"].default)

    @property
    def channels(self) -> int:
        """Channels of the latents."""
        return int(self.denoiser.config.in_channels)

    def latent_shape(self, height: int | None, width: int | None) -> tuple[int, int, int]:
        if height is None or width is None:
            height, width = height or self._sides[0], width or self._sides[1]
        sides = (height, width)
        for side in sides:
            if side % self.grain:
                below = max(side // self.grain, 1) * self.grain
                raise TastemakerError(
                    f"{self.name} draws sizes that are multiples of {self.grain} pixels, not"
                    f" {side}; take {below} or {below + self.grain}."
                )
        high, wide = (side // self.pipeline.vae_scale_factor for side in sides)
        return self.channels, high, wide

    def set_scheduler(self, name: str) -> None:
        if name not in self.samplers:
            raise TastemakerError(
                f"scheduler {name!r} is none that {self.name} can be drawn by."
                f" {nearest(name, self.samplers)} Or leave scheduler out."
            )
        self.pipeline.scheduler = sampler(getattr(diffusers, name), self.pipeline.scheduler)

    @torch.no_grad()
    def encode_prompts(self, prompts: Sequence[str]) -> Conditioning:
        embeddings = stack([self._encode(text) for text in prompts])
        if self.text_range is not None:
            with self._text_adapters_off():
                outside = stack([self._encode(text) for text in prompts])
            embeddings |= {f"{OUTSIDE}{name}": value for name, value in outside.items()}
        return embeddings

    @abstractmethod
    def _encode(self, prompt: str) -> Conditioning:
        """Embeddings of one prompt by the pipeline's own code, under its arguments' names."""

    @contextlib.contextmanager
    def _text_adapters_off(self) -> Iterator[None]:
        adapted = [each for each in self.text_encoders if POLICY in _adapters(each)]
        for encoder in adapted:
            encoder.disable_adapters()
        try:
            yield
        finally:
            for encoder in adapted:
                encoder.enable_adapters()

    @property
    def text_encoders(self) -> list[Any]:
        return [getattr(self.pipeline, name) for name in self.text_parts]

    def encode_images(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.vae.encode(pixels)

    def shares_latents(self, model: str) -> bool:
        ours, theirs = (resolve(root_of(each)) for each in (self.name, model))
        if ours == theirs:
            return True
        with contextlib.suppress(TastemakerError):
            return latent_units(ours) == latent_units(theirs)
        return True

    @torch.no_grad()
    def decode_latents(self, latents: torch.Tensor) -> list[Image.Image]:
        pixels = self.vae.decode(latents)
        images: list[Image.Image] = self.pipeline.image_processor.postprocess(pixels, "pil")
        return images

    def decode_pixels(self, latents: torch.Tensor) -> torch.Tensor:
        return (self.vae.decode(latents).float() / 2 + 0.5).clamp(0, 1)

    @torch.no_grad()
    def sample(
        self, drawing: Drawing, *, height: int | None = None, width: int | None = None
    ) -> torch.Tensor:
        shape = self.latent_shape(height, width)
        first = int(self._grid(drawing.num_inference_steps, shape).timesteps[0])
        latents: torch.Tensor = self.pipeline(
            **self._pipeline_arguments(drawing, first),
            height=shape[1] * self.pipeline.vae_scale_factor,
            width=shape[2] * self.pipeline.vae_scale_factor,
        ).images
        return self._finite(latents)

    def check_steps(self, num_inference_steps: int, shape: Sequence[int]) -> None:
        said = f"{self.name} has {self.num_timesteps} timesteps"
        if num_inference_steps <= self.num_timesteps:
            try:
                self._grid(num_inference_steps, shape)
                return
            except ValueError as error:
                said = f"{type(self.pipeline.scheduler).__name__}: {error}"
        raise TastemakerError(f"num_inference_steps={num_inference_steps} is too many: {said}.")

    def _finite(self, latents: torch.Tensor) -> torch.Tensor:
        if not torch.isfinite(latents).all():
            raise TastemakerError(
                f"{self.name} drew latents that are not finite. Lower guidance_scale, or take"
                " dtype=bf16 or fp32 in place of fp16; after a training, lower its learning rate."
            )
        return latents

    @abstractmethod
    def _grid(self, num_inference_steps: int, shape: Sequence[int]) -> Any:
        """The pipeline's own sampler, with the timesteps that it will take for such latents."""

    def _pipeline_arguments(self, drawing: Drawing, first: int) -> dict[str, Any]:
        """A drawing as the pipeline takes it, to be denoised from its `first` timestep on."""
        return {
            **self._prompt_arguments(drawing, first),
            "generator": drawing.generators(),
            "num_inference_steps": drawing.num_inference_steps,
            "guidance_scale": drawing.guidance_scale,
            "output_type": "latent",
        }

    def _prompt_arguments(self, drawing: Drawing, first: int) -> dict[str, Any]:
        """Embeddings as the pipeline takes them; two of each where a range of timesteps is set."""
        negative = {f"negative_{key}": value for key, value in drawing.negative.items()}
        both = {**drawing.conditioning, **negative}
        inside = {key: value for key, value in both.items() if OUTSIDE not in key}
        if self.text_range is None:
            return inside
        outside = {key.replace(OUTSIDE, ""): both[key] for key in both if OUTSIDE in key}
        return text_range_arguments(
            self.pipeline, inside, outside, self.text_range, first, guided=drawing.guided
        )

    def switch(self, config: AdapterConfig) -> None:
        adapted = self.pipeline.get_list_adapters()
        if not any(POLICY in names for names in adapted.values()):
            if config.words:
                raise TastemakerError(
                    f"adapter: {self.name} has no LoRA that could be switched; leave adapter out."
                )
            return
        switch_lora(self.pipeline, POLICY, scale=config.scale, blocks=config.blocks)
        on_text = any(POLICY in adapted.get(name, []) for name in self.text_parts)
        self.text_range = None
        if on_text and config.text_range is not None:
            low, high = map(self.noise_schedule.timestep_at, config.text_range)
            self.text_range = low, high

    def sample_with_gradient(
        self,
        denoiser: torch.nn.Module,
        drawing: Drawing,
        *,
        keep: int,
        height: int | None = None,
        width: int | None = None,
        checkpointing: bool = True,
    ) -> torch.Tensor:
        shape = self.latent_shape(height, width)
        scheduler = self._deterministic(drawing.num_inference_steps, shape)
        noise = self._noise(drawing, shape)
        step = self._step(denoiser, scheduler, drawing)
        return unroll(step, noise, scheduler.timesteps, keep=keep, checkpointing=checkpointing)

    @abstractmethod
    def _deterministic(self, num_inference_steps: int, shape: Sequence[int]) -> Any:
        """A sampler whose step is a function of prediction, timestep and latents alone."""

    def _step(self, denoiser: torch.nn.Module, scheduler: Any, drawing: Drawing) -> Step:
        return guided_step(partial(self._predict_in_sampler, denoiser), scheduler, drawing)

    def _predict_in_sampler(
        self,
        denoiser: torch.nn.Module,
        noisy_latents: torch.Tensor,
        timestep: torch.Tensor,
        conditioning: Conditioning,
    ) -> torch.Tensor:
        """Run a denoiser at a timestep of the sampler's."""
        return self.predict(denoiser, noisy_latents, timestep, conditioning)

    def _noise(self, drawing: Drawing, shape: Sequence[int]) -> torch.Tensor:
        """Noise of each image's seed, as the pipeline draws it, in float32."""
        noise = randn_tensor(
            (len(drawing.seeds), *shape),
            generator=drawing.generators(),
            device=self.device,
            dtype=drawing.dtype,
        )
        return noise.float()

    def prepare_training(self, device: torch.device | None = None) -> None:
        keep_in_fp32(getattr(self.denoiser, self.last))

    def release_encoders(self, *, keep_text: bool = False) -> None:
        self.pipeline.vae = None
        del self.vae
        for name in self.pipeline.components:
            # A text encoder that no LoRA trains on has said all that it will: it is cached.
            if name.startswith(TEXT) and not (keep_text and name in self.text_parts):
                setattr(self.pipeline, name, None)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    @property
    def adaptable_parts(self) -> tuple[str, ...]:
        return (self.part, *self.text_parts)

    def fuse(self, layers: Mapping[str, Layer]) -> None:
        for part in sorted({module.partition(".")[0] for module in layers}):
            if part not in self.adaptable_parts:
                raise TastemakerError(
                    f"a LoRA below adapts {part}, which no LoRA may on {self.name}, a"
                    f" {type(self.pipeline).__name__}. Take the base that it belongs to."
                )
            fuse(getattr(self.pipeline, part), part_of(layers, part))

    def fuse_adapters(self) -> None:
        if self.attached is not None:
            layers = read_layers(self.attached / LORA_FILE)
            self.pipeline.unload_lora_weights()
            self.fuse(layers)
            self.attached = None

    def attach(self, folder: Path) -> None:
        read_tensors(folder / LORA_FILE)
        try:
            self.pipeline.load_lora_weights(
                str(folder),
                adapter_name=POLICY,
                # On `meta` the LoRA's own numbers are kept, which is what it is loaded there for.
                low_cpu_mem_usage=self.device.type == "meta",
            )
        except (RuntimeError, ValueError, KeyError, TypeError) as error:
            # torch says in its second line which layer it is.
            first = " ".join(line.strip() for line in str(error).strip().splitlines()[:2])
            raise TastemakerError(
                f"the LoRA in {folder} does not fit {self.name}, a {type(self.pipeline).__name__}:"
                f" {first} Load it on the model that it was trained on."
            ) from error
        if not any(POLICY in names for names in self.pipeline.get_list_adapters().values()):
            raise TastemakerError(
                f"the LoRA in {folder} adapts nothing of {self.name}, a"
                f" {type(self.pipeline).__name__}: it belongs to another family. Load it on the"
                " model that it was trained on."
            )
        self.attached = folder

    def attached_layers(self) -> Layers:
        found: Layers = {}
        for part in self.adaptable_parts:
            network = getattr(self.pipeline, part)
            found |= {f"{part}.{path}": each for path, each in adapter_layers(network, POLICY)}
        return found

    def adapted_parts(self, folder: Path) -> set[str]:
        return {module.partition(".")[0] for module in read_layers(folder / LORA_FILE)}

    def load_adapter(self, folder: Path, adapter: str) -> None:
        refuse_token(folder)
        layers = read_layers(folder / LORA_FILE)
        for part, module in self._adapted_by(adapter).items():
            own = part_of(layers, part)
            if own or not part.startswith(TEXT):
                # Of a LoRA of the denoiser alone, the text encoder's begins afresh.
                load_lora(module, adapter, own, folder)

    def save_adapter(self, folder: Path, adapter: str) -> None:
        options: dict[str, Any] = {}
        for part, module in self._adapted_by(adapter).items():
            peft = part == "transformer"
            options[f"{part}_lora_layers"] = lora_layers(module, adapter, peft=peft)
            options[f"{part}_lora_adapter_metadata"] = lora_metadata(module, adapter)
        self.pipeline.save_lora_weights(folder, **options)
        sort_header(folder / LORA_WEIGHT_NAME_SAFE)

    def _adapted_by(self, adapter: str) -> dict[str, torch.nn.Module]:
        parts = {name: getattr(self.pipeline, name) for name in self.adaptable_parts}
        return {name: module for name, module in parts.items() if adapter in _adapters(module)}

    def save_pipeline(self, folder: Path) -> None:
        with written_folder(folder) as temporary:
            self.pipeline.save_pretrained(temporary)


def _limit_tokenizers(pipeline: Any) -> None:
    """Cut prompts at a CLIP encoder's positions, also where its tokenizer's file has no limit."""
    for end in ("", "_2"):
        tokenizer = getattr(pipeline, f"tokenizer{end}", None)
        encoder = getattr(pipeline, f"{TEXT}{end}", None)
        positions = getattr(getattr(encoder, "config", None), "max_position_embeddings", None)
        if tokenizer is not None and positions is not None:
            tokenizer.model_max_length = min(tokenizer.model_max_length, positions)
    if hasattr(pipeline, "tokenizer_max_length"):
        pipeline.tokenizer_max_length = pipeline.tokenizer.model_max_length


def _adapters(module: Any) -> dict[str, Any]:
    """The LoRAs on a network by name; none on a network that was released."""
    found: dict[str, Any] = getattr(module, "peft_config", {})
    return found
