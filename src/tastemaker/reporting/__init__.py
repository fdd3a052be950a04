"""Pages and folders for people: reports, contact sheets, published models."""

from typing import TYPE_CHECKING

from tastemaker.core.lazy import lazy_exports

if TYPE_CHECKING:
    from tastemaker.reporting.judges import judge_of as judge_of
    from tastemaker.reporting.judges import training_scorers as training_scorers

__all__, __getattr__, __dir__ = lazy_exports(__name__)
