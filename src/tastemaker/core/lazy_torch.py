"""torch and numpy, imported when something of them is used.

For modules that are imported where there may be nothing to compute, to read options for instance:

    from tastemaker.core.lazy_torch import torch
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


class _Module:
    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        value = getattr(importlib.import_module(self._name), attribute)
        setattr(self, attribute, value)  # found without this function from now on
        return value


if TYPE_CHECKING:
    import numpy as np
    import torch as torch
    import torch.nn.functional as F
else:
    np = _Module("numpy")
    torch = _Module("torch")
    F = _Module("torch.nn.functional")

__all__ = ["F", "no_grad", "np", "torch"]


def no_grad(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """Decorate a function so that what it computes has no graph, as `torch.no_grad()` does."""

    @functools.wraps(function)
    def without_graph(*args: Parameters.args, **options: Parameters.kwargs) -> Result:
        with torch.no_grad():
            return function(*args, **options)

    return without_graph
