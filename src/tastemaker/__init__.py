"""Tastemaker teaches text-to-image diffusion models what people prefer.

Five rooms, each a function of its configuration: `generate`, `score`, `pair`, `train`, `evaluate`.
Recipes call them in a paper's order; `tastemaker run NAME` runs one from a YAML file.
"""

__version__ = "0.1.0"
