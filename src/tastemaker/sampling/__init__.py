"""Sampling: prompts or real images to pools of candidates, reconstructions and blends."""

from typing import TYPE_CHECKING

from tastemaker.core.lazy import lazy_exports

if TYPE_CHECKING:
    from tastemaker.sampling.generate import reconstruct as reconstruct
    from tastemaker.sampling.plans import Item as Item
    from tastemaker.sampling.plans import RealImage as RealImage
    from tastemaker.sampling.plans import plan as plan
    from tastemaker.sampling.plans import plan_items as plan_items
    from tastemaker.sampling.plans import plan_reconstructions as plan_reconstructions
    from tastemaker.sampling.sampler import sample_pool as sample_pool

__all__, __getattr__, __dir__ = lazy_exports(__name__)
