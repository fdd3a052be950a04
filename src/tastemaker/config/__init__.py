"""Typed options of every command and run, and the YAML that they are read from."""

from typing import TYPE_CHECKING

from tastemaker.core.lazy import lazy_exports

if TYPE_CHECKING:
    from tastemaker.config.comments import commented as commented
    from tastemaker.config.loading import dump as dump
    from tastemaker.config.loading import load as load
    from tastemaker.config.loading import shipped_runs as shipped_runs

__all__, __getattr__, __dir__ = lazy_exports(__name__)
