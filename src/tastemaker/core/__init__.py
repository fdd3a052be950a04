"""Foundations without a torch model: errors, registries, keyed seeds, devices, file readers."""

from typing import TYPE_CHECKING

from tastemaker.core.lazy import lazy_exports

if TYPE_CHECKING:
    from tastemaker.core.errors import TastemakerError as TastemakerError
    from tastemaker.core.noise_schedule import NoiseSchedule as NoiseSchedule
    from tastemaker.core.plugins import load_plugins as load_plugins
    from tastemaker.core.registry import Table as Table
    from tastemaker.core.seeding import keyed_generator as keyed_generator
    from tastemaker.core.seeding import keyed_seed as keyed_seed

__version__ = "0.1.0"
__all__, __getattr__, __dir__ = lazy_exports(__name__)
