"""LoRA: adapters on a network, their files in diffusers' and other tools' forms, stacking."""

from typing import TYPE_CHECKING

from tastemaker.core.lazy import lazy_exports

if TYPE_CHECKING:
    from tastemaker.backbones.lora.adapters import add_lora as add_lora
    from tastemaker.backbones.lora.exchange import export_lora as export_lora
    from tastemaker.backbones.lora.exchange import import_lora as import_lora
    from tastemaker.backbones.lora.layers import Layer as Layer
    from tastemaker.backbones.lora.layers import read_layers as read_layers
    from tastemaker.backbones.lora.layers import write_layers as write_layers
    from tastemaker.backbones.lora.stacking import merge_adapters as merge_adapters
    from tastemaker.backbones.lora.stacking import stack_adapter as stack_adapter
    from tastemaker.backbones.lora.switches import switch_lora as switch_lora
    from tastemaker.backbones.lora.weights import attach_lora as attach_lora
    from tastemaker.backbones.lora.weights import fuse_attached as fuse_attached
    from tastemaker.backbones.lora.weights import load_adapter as load_adapter
    from tastemaker.backbones.lora.weights import save_adapter as save_adapter

__all__, __getattr__, __dir__ = lazy_exports(__name__)
