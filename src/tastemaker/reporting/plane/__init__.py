"""Figures of personalised models: closeness to the subject against closeness to the prompt."""

from typing import TYPE_CHECKING

from tastemaker.core.lazy import lazy_exports

if TYPE_CHECKING:
    from tastemaker.reporting.plane.axes import AngleWindow as AngleWindow
    from tastemaker.reporting.plane.axes import Plane as Plane
    from tastemaker.reporting.plane.report import figures as figures

__all__, __getattr__, __dir__ = lazy_exports(__name__)
