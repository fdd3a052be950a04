"""Strength, blocks and timesteps of a LoRA during sampling.

HG-DPO samples at half strength, its U-Net part in the up blocks alone, its text encoder's part in
the first, noisiest tenth of the timesteps. In a diffusers script of your own:

    switch_lora(pipeline, "hg_dpo", scale=0.5, blocks=("up",))
    inside = {"prompt_embeds": ..., "negative_prompt_embeds": ...}   # pipeline.encode_prompt
    pipeline.text_encoder.disable_adapters()
    outside = {...}                                                  # the same once more
    arguments = text_range_arguments(pipeline, inside, outside, (900, 1000), first, guided=True)
    pipeline(**arguments)                                            # first: its first timestep
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from tastemaker.backbones.lora.adapters import has_adapter
from tastemaker.backbones.lora.diffusers_file import POLICY
from tastemaker.backbones.tokens import TEXT
from tastemaker.config.sections import AdapterConfig
from tastemaker.core.errors import TastemakerError

if TYPE_CHECKING:
    from tastemaker.backbones.base import Backbone

BLOCKS = ("down", "mid", "up")
CALLED = {
    "prompt_embeds": "prompt_embeds",
    "add_text_embeds": "pooled_prompt_embeds",
    "pooled_prompt_embeds": "pooled_prompt_embeds",
}
"""Argument of a pipeline for each tensor of its denoising loop."""

OUTSIDE = "outside_"
"""Prefix of the embeddings for timesteps outside the range."""


def switch_lora(
    pipeline: Any, adapter: str, *, scale: float = 1.0, blocks: Sequence[str] = BLOCKS
) -> None:
    """Set how strongly a loaded LoRA acts, and in which blocks of the denoiser.

    Other loaded LoRAs keep their strength: this is how one LoRA is stacked on another.

    Args:
        pipeline: A diffusers pipeline that has loaded the LoRA.
        adapter: Its name.
        scale: Factor on the update; 0 turns it off, HG-DPO draws at 0.5.
        blocks: Of "down", "mid", "up"; in the others the update is 0.

    Raises:
        TastemakerError: No such LoRA is loaded, or no such block.

    References:
        HG-DPO, arXiv 2405.20216, inference.
    """
    parts = pipeline.get_list_adapters()
    loaded = sorted({name for names in parts.values() for name in names})
    if adapter not in loaded:
        raise TastemakerError(f"no LoRA named {adapter!r} is loaded; loaded are {loaded}.")
    unknown = sorted(set(blocks) - set(BLOCKS))
    if unknown:
        raise TastemakerError(f"unknown block {unknown[0]!r}; a denoiser has {', '.join(BLOCKS)}.")
    weights: dict[str, Any] = {name: scale for name in parts if adapter in parts[name]}
    if set(blocks) != set(BLOCKS):
        for name in weights:
            if name != "unet" and not name.startswith(TEXT):
                raise TastemakerError(
                    f"adapter.blocks: a {name} has no down, mid and up blocks; leave blocks out."
                )
        if "unet" in weights:
            weights["unet"] = {block: scale * (block in blocks) for block in BLOCKS}
    active = [name for name in loaded if name != adapter]
    pipeline.set_adapters([*active, adapter], [*(1.0 for _ in active), weights])


def switch_policy(backbone: Backbone, config: AdapterConfig) -> None:
    """Set where a model's attached LoRA acts during sampling; without one nothing is set.

    Args:
        backbone: The model.
        config: Scale, blocks and the text encoder's range of timesteps. With a range, or with
            `lan`, prompts encoded from then on carry two embeddings.

    Raises:
        TastemakerError: Without a LoRA, or the family has no such blocks or range.
    """
    if not any(map(has_adapter, (backbone.denoiser, *backbone.text_encoders))):
        if config != AdapterConfig(negative=config.negative):
            raise TastemakerError(
                f"adapter: {backbone.name} has no LoRA that could be switched; leave adapter out."
            )
        return
    switch_lora(backbone.pipeline, POLICY, scale=config.scale, blocks=config.blocks)
    on_text = any(map(has_adapter, backbone.text_encoders))
    backbone.text_range, backbone.lan = None, config.lan
    if on_text and config.text_range is not None:
        if not backbone.takes_text_range:
            raise TastemakerError(
                f"adapter.text_range: {backbone.name} keeps one text embedding for all timesteps;"
                " leave it out."
            )
        low, high = map(backbone.noise_schedule.timestep_at, config.text_range)
        backbone.text_range = low, high


@contextlib.contextmanager
def adapters_off(networks: Sequence[Any]) -> Iterator[None]:
    """Turn the LoRAs of networks off, where they have one, and on again."""
    carriers = list(filter(has_adapter, networks))
    for network in carriers:
        network.disable_adapters()
    try:
        yield
    finally:
        for network in carriers:
            network.enable_adapters()


def text_range_arguments(
    pipeline: Any,
    inside: Mapping[str, torch.Tensor],
    outside: Mapping[str, torch.Tensor],
    between: tuple[int, int],
    first: int,
    *,
    guided: bool,
) -> dict[str, Any]:
    """Let a text encoder's LoRA act at some timesteps only: embeddings change between two steps.

    Args:
        pipeline: A diffusers pipeline with `callback_on_step_end`.
        inside: `prompt_embeds` and `negative_prompt_embeds` with the LoRA on, and the pooled ones
            where the pipeline takes them.
        outside: The same without it.
        between: The LoRA acts at timesteps in [low, high) of the pipeline's own schedule.
        first: The first timestep that will be denoised.
        guided: True with classifier-free guidance.

    Returns:
        Arguments of the pipeline's call.
    """
    low, high = between
    last = pipeline.scheduler.config.num_train_timesteps - 1
    names = {name: CALLED[name] for name in pipeline._callback_tensor_inputs if name in CALLED}

    def at(timestep: float) -> Mapping[str, torch.Tensor]:
        # A flow begins at the full level of noise, T itself.
        return inside if low <= min(timestep, last) < high else outside

    def after_step(
        pipe: Any, step: int, timestep: Any, tensors: dict[str, torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        following = pipe.scheduler.timesteps[pipe.scheduler.timesteps < timestep]
        if len(following):
            held = at(float(following[0]))
            for name, key in names.items():
                parts = [held[key]]
                if guided:
                    parts.insert(0, held[f"negative_{key}"])
                tensors[name] = torch.cat(parts).to(tensors[name])
        return tensors

    return {
        **at(first),
        "callback_on_step_end": after_step,
        "callback_on_step_end_tensor_inputs": list(names),
    }
