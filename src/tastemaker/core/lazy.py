"""Public names of a package that are imported when they are first used."""

from __future__ import annotations

import ast
import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


def lazy_exports(package: str) -> tuple[list[str], Callable[[str], Any], Callable[[], list[str]]]:
    """Export all that a package's `__init__` imports `if TYPE_CHECKING`.

    Type checkers read the imports; at run time one is done when its name is first used, so that
    importing the package is cheap:

        if TYPE_CHECKING:
            from tastemaker.sampling.sampler import Sampler as Sampler

        __all__, __getattr__, __dir__ = lazy_exports(__name__)

    A module of the package is exported by `from PACKAGE import losses as losses`; nothing else can
    have the name of one, since the module, once imported, hides it.

    Args:
        package: The package's `__name__`.

    Returns:
        `__all__`, `__getattr__` and `__dir__` of the package.
    """
    module = sys.modules[package]
    homes = exported(Path(str(module.__file__)))

    def get(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        if homes[name] == package:  # a module of its own
            return importlib.import_module(f"{package}.{name}")
        return getattr(importlib.import_module(homes[name]), name)

    return sorted(homes), get, lambda: sorted({*vars(module), *homes})


def exported(file: Path) -> dict[str, str]:
    """Return the names that a package's `__init__.py` exports, each with its module."""
    return {
        alias.name: node.module
        for block in ast.parse(file.read_text(encoding="utf-8")).body
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
        for node in block.body
        if isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names
    }
