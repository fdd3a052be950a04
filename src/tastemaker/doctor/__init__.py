"""Memory that a run needs, computed before it begins, and changes of images that fool a scorer."""

from typing import TYPE_CHECKING

from tastemaker.core.lazy import lazy_exports

if TYPE_CHECKING:
    from tastemaker.doctor.live_bytes import LiveBytes as LiveBytes
    from tastemaker.doctor.peak_memory import Need as Need

__all__, __getattr__, __dir__ = lazy_exports(__name__)
