"""Preflight: all that options name is looked for before anything is written."""

from typing import TYPE_CHECKING

from tastemaker.core.lazy import lazy_exports

if TYPE_CHECKING:
    from tastemaker.preflight.checks import KINDS as KINDS
    from tastemaker.preflight.checks import LOADING_LOOKS as LOADING_LOOKS
    from tastemaker.preflight.checks import LOOKS as LOOKS
    from tastemaker.preflight.checks import check as check
    from tastemaker.preflight.checks import check_loading as check_loading
    from tastemaker.preflight.checks import expect as expect
    from tastemaker.preflight.checks import expect_columns as expect_columns

__all__, __getattr__, __dir__ = lazy_exports(__name__)
