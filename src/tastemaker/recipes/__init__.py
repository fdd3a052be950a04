"""Recipes: the papers' methods, each a short function that calls rooms in the paper's order."""

from tastemaker.recipes.dde import dde
from tastemaker.recipes.diffusion_dpo import diffusion_dpo

__all__ = ["dde", "diffusion_dpo"]
