"""Tastemaker teaches text-to-image diffusion models what people prefer.

    import tastemaker as tm

    config = tm.load("demo")
    pool = tm.score(config.score, tm.generate(config.generate, Path("runs/mine/candidates")))

Every command is a function of its configuration, imported when it is first used, so that importing
this package is cheap. Recipes call them in the order of a paper; `tastemaker run NAME` runs one
from a YAML file.
"""

import importlib
from typing import TYPE_CHECKING, Any

from tastemaker.core import __version__

if TYPE_CHECKING:
    from tastemaker.config.loading import load as load
    from tastemaker.core.errors import TastemakerError as TastemakerError
    from tastemaker.core.registry import CREDITS as CREDITS
    from tastemaker.core.registry import JOINS as JOINS
    from tastemaker.core.registry import LOSSES as LOSSES
    from tastemaker.core.registry import MODELS as MODELS
    from tastemaker.core.registry import PROMPTS as PROMPTS
    from tastemaker.core.registry import RECIPES as RECIPES
    from tastemaker.core.registry import RULES as RULES
    from tastemaker.core.registry import SCORERS as SCORERS
    from tastemaker.datasets.exporting import export_comparisons as export_comparisons
    from tastemaker.datasets.importing import import_comparisons as import_comparisons
    from tastemaker.datasets.importing import import_images as import_images
    from tastemaker.evaluation.evaluate import evaluate as evaluate
    from tastemaker.evaluation.score import score as score
    from tastemaker.pairing.join import join as join
    from tastemaker.pairing.join import mix as mix
    from tastemaker.pairing.pair import pair as pair
    from tastemaker.pairing.picks import Pick as Pick
    from tastemaker.recipes.run import run as run
    from tastemaker.reporting.pool.show import show as show
    from tastemaker.reporting.publish import publish as publish
    from tastemaker.reporting.report import report as report
    from tastemaker.sampling.blend import blend as blend
    from tastemaker.sampling.generate import generate as generate
    from tastemaker.sampling.generate import reconstruct as reconstruct
    from tastemaker.storage.groups import Group as Group
    from tastemaker.training.personalization.personalize import personalize as personalize
    from tastemaker.training.preference.train import train as train
    from tastemaker.training.reward.train import train_reward as train_reward

_HOMES = {
    "CREDITS": "core.registry",
    "Group": "storage.groups",
    "JOINS": "core.registry",
    "LOSSES": "core.registry",
    "MODELS": "core.registry",
    "PROMPTS": "core.registry",
    "Pick": "pairing.picks",
    "RECIPES": "core.registry",
    "RULES": "core.registry",
    "SCORERS": "core.registry",
    "TastemakerError": "core.errors",
    "blend": "sampling.blend",
    "evaluate": "evaluation.evaluate",
    "export_comparisons": "datasets.exporting",
    "generate": "sampling.generate",
    "import_comparisons": "datasets.importing",
    "import_images": "datasets.importing",
    "join": "pairing.join",
    "load": "config.loading",
    "mix": "pairing.join",
    "pair": "pairing.pair",
    "personalize": "training.personalization.personalize",
    "publish": "reporting.publish",
    "reconstruct": "sampling.generate",
    "report": "reporting.report",
    "run": "recipes.run",
    "score": "evaluation.score",
    "show": "reporting.pool.show",
    "train": "training.preference.train",
    "train_reward": "training.reward.train",
}
"""The module of each public name, as the imports above."""

__all__ = [*_HOMES, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
