"""torch, imported when something of it is used.

For modules that register options, which are read where there may be nothing to compute:

    from tastemaker.core.lazy_torch import torch
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any


class _Module:
    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        return getattr(importlib.import_module(self._name), attribute)


if TYPE_CHECKING:
    import torch as torch
    import torch.nn.functional as F
else:
    torch = _Module("torch")
    F = _Module("torch.nn.functional")

__all__ = ["F", "torch"]
