"""Model families: the only code that knows one diffusers pipeline from another."""

from typing import TYPE_CHECKING

from tastemaker.core.lazy import lazy_exports

if TYPE_CHECKING:
    from tastemaker.backbones.base import Backbone as Backbone
    from tastemaker.backbones.checks import check_model as check_model
    from tastemaker.backbones.checks import check_sampling as check_sampling
    from tastemaker.backbones.checks import student_warning as student_warning
    from tastemaker.backbones.compilation import check_compile as check_compile
    from tastemaker.backbones.compilation import compile_blocks as compile_blocks
    from tastemaker.backbones.conditioning import Conditioning as Conditioning
    from tastemaker.backbones.conditioning import select as select
    from tastemaker.backbones.conditioning import stack as stack
    from tastemaker.backbones.gradient_sampling import sample_with_gradient as sample_with_gradient
    from tastemaker.backbones.identity import adapter_identity as adapter_identity
    from tastemaker.backbones.identity import encoder_identity as encoder_identity
    from tastemaker.backbones.identity import ip_adapter_identity as ip_adapter_identity
    from tastemaker.backbones.identity import model_identity as model_identity
    from tastemaker.backbones.latents import encode_row as encode_row
    from tastemaker.backbones.loading import load_backbone as load_backbone
    from tastemaker.backbones.loading import wrap_pipeline as wrap_pipeline
    from tastemaker.backbones.lora.stacking import merge_adapters as merge_adapters
    from tastemaker.backbones.lora.stacking import stack_adapter as stack_adapter
    from tastemaker.backbones.sampling_batch import SamplingBatch as SamplingBatch

__all__, __getattr__, __dir__ = lazy_exports(__name__)
