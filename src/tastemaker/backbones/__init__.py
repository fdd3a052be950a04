"""Model families: the only code that knows one diffusers pipeline from another."""

from tastemaker.backbones.base import Backbone
from tastemaker.backbones.checks import check_drawing, check_model, student_warning
from tastemaker.backbones.conditioning import Conditioning, select, stack
from tastemaker.backbones.drawing import Drawing
from tastemaker.backbones.identity import adapter_identity, model_identity
from tastemaker.backbones.loading import load_backbone
from tastemaker.backbones.lora.stacking import merge_adapters, stack_adapter

__all__ = [
    "Backbone",
    "Conditioning",
    "Drawing",
    "adapter_identity",
    "check_drawing",
    "check_model",
    "load_backbone",
    "merge_adapters",
    "model_identity",
    "select",
    "stack",
    "stack_adapter",
    "student_warning",
]
