"""Scorers: from pictures and prompts to numbers."""

from typing import TYPE_CHECKING

from tastemaker.core.lazy import lazy_exports

if TYPE_CHECKING:
    from tastemaker.scorers.base import PixelScorer as PixelScorer
    from tastemaker.scorers.base import Scorer as Scorer
    from tastemaker.scorers.pool import score_pools as score_pools

__all__, __getattr__, __dir__ = lazy_exports(__name__)
