"""Scores of pools, and policies judged against their base."""

from typing import TYPE_CHECKING

from tastemaker.core.lazy import lazy_exports

if TYPE_CHECKING:
    from tastemaker.evaluation.comparison import compare as compare
    from tastemaker.evaluation.report_text import summary as summary

__all__, __getattr__, __dir__ = lazy_exports(__name__)
