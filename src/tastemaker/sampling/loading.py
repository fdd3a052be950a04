"""Load models to draw with: alone, or several of one base in turn."""

from __future__ import annotations

from pathlib import Path

from tastemaker.backbones.base import Backbone
from tastemaker.backbones.compilation import compile_blocks
from tastemaker.backbones.ip_adapter import add_ip_adapter
from tastemaker.backbones.loading import add_adapters, load_backbone
from tastemaker.backbones.lora.negative import add_negative
from tastemaker.backbones.lora.switches import switch_policy
from tastemaker.backbones.lora.weights import Replaced, fuse_policy, remove_loras
from tastemaker.backbones.places import TOKEN_FILE, adapter_chain, root_of
from tastemaker.config.sections import SamplingConfig

LOADED = ("device", "dtype", "scheduler", "torch_compile", "ip_adapter", "ip_adapter_scale")
"""Options that a base is loaded by."""


def load_policy(config: SamplingConfig, model: str) -> Backbone:
    """Load a model for drawing: its LoRA as configured, added to the weights where that is exact.

    Args:
        config: Sampling options.
        model: Name, hub id or folder.
    """
    backbone = _load(config, model)
    _switch(config, backbone)
    if config.torch_compile:
        compile_blocks(backbone.denoiser)
    return backbone


class PolicyLoader:
    """Loads models for drawing in turn; the networks of a base that they share are loaded once.

    Each is what `load_policy` returns, bit for bit, until the next is asked for: their LoRAs are
    put on and taken off. In fp32, where they are added to the weights, those weights are kept
    twice. Models with a learned word, or compiled ones, are loaded on their own.
    """

    def __init__(self) -> None:
        self.backbone: Backbone | None = None
        self.base: tuple[object, ...] = ()
        self.drawn: tuple[object, ...] = ()
        self.replaced: Replaced = {}

    def __call__(self, config: SamplingConfig, model: str) -> Backbone:
        """Load a model, or turn the one that is loaded into it.

        Args:
            config: Sampling options.
            model: Name, hub id or folder.
        """
        base = (root_of(model), *(getattr(config, option) for option in LOADED))
        drawn = (*base, model, config.adapter, _guided(config))
        if self.backbone is None or drawn != self.drawn:
            self._turn(config, model, base)
        self.drawn = drawn
        assert self.backbone is not None
        return self.backbone

    def _turn(self, config: SamplingConfig, model: str, base: tuple[object, ...]) -> None:
        alone = config.torch_compile or _has_word(model)
        if alone or base != self.base:
            self.backbone, self.replaced = None, {}  # freed before the next takes memory
            self.base = () if alone else base
        if alone:
            self.backbone = load_policy(config, model)
            return
        if self.backbone is None:
            self.backbone = _load(config, root_of(model))
        remove_loras(self.backbone, self.replaced)
        add_adapters(self.backbone, model, replaced=self.replaced)
        _switch(config, self.backbone, self.replaced)


def _load(config: SamplingConfig, model: str) -> Backbone:
    backbone = load_backbone(
        model, device=config.device, dtype=config.dtype, scheduler=config.scheduler
    )
    if config.ip_adapter is not None:
        add_ip_adapter(backbone, config.ip_adapter, config.ip_adapter_scale)
    return backbone


def _switch(config: SamplingConfig, backbone: Backbone, replaced: Replaced | None = None) -> None:
    """Set where LoRAs act: the model's own, and that of guidance's unconditional branch."""
    switch_policy(backbone, config.adapter)
    fuse_policy(backbone, replaced)
    if config.adapter.negative is not None and _guided(config):
        add_negative(backbone, Path(config.adapter.negative))


def _guided(config: SamplingConfig) -> bool:
    """True if there is an unconditional branch, as with the default of every family."""
    return config.guidance_scale is None or config.guidance_scale > 1


def _has_word(model: str) -> bool:
    folders, _ = adapter_chain(model)
    return any((folder / TOKEN_FILE).is_file() for folder in folders)
