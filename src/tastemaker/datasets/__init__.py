"""Data sets in and out: comparisons, captioned photographs, prompts, subjects."""

from typing import TYPE_CHECKING

from tastemaker.core.lazy import lazy_exports

if TYPE_CHECKING:
    from tastemaker.datasets.captioned import Captioned as Captioned
    from tastemaker.datasets.comparisons import Comparison as Comparison
    from tastemaker.datasets.exporting import export_comparisons as export_comparisons
    from tastemaker.datasets.importing import import_comparisons as import_comparisons
    from tastemaker.datasets.importing import import_images as import_images
    from tastemaker.datasets.items import LeftOut as LeftOut
    from tastemaker.datasets.items import Refused as Refused
    from tastemaker.datasets.items import Source as Source
    from tastemaker.datasets.validation import check as check

__all__, __getattr__, __dir__ = lazy_exports(__name__)
