"""Candidates to pairs: rules over scores, and joins of two pools."""

from typing import TYPE_CHECKING

from tastemaker.core.lazy import lazy_exports

if TYPE_CHECKING:
    from tastemaker.pairing.join import mix as mix
    from tastemaker.pairing.picks import Dropped as Dropped
    from tastemaker.pairing.picks import Pick as Pick

__all__, __getattr__, __dir__ = lazy_exports(__name__)
