"""Recipes: the papers' methods, each a short function that calls commands in their order."""

from tastemaker.recipes.align_prop import align_prop
from tastemaker.recipes.curriculum_dpo import curriculum_dpo
from tastemaker.recipes.dde import dde
from tastemaker.recipes.diffusion_dpo import diffusion_dpo
from tastemaker.recipes.dreambooth_dpo import dreambooth_dpo
from tastemaker.recipes.hg_dpo import hg_dpo, hg_dpo_mixed

__all__ = [
    "align_prop",
    "curriculum_dpo",
    "dde",
    "diffusion_dpo",
    "dreambooth_dpo",
    "hg_dpo",
    "hg_dpo_mixed",
]
