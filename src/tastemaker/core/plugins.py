"""Plugins: the user's own files, whose decorators enter new entries in the tables."""

from __future__ import annotations

import importlib.util
import sys
import traceback
from collections.abc import Collection
from pathlib import Path

from tastemaker.core.content_hash import file_content
from tastemaker.core.errors import TastemakerError
from tastemaker.core.reading import require_file
from tastemaker.core.registry import TABLES
from tastemaker.core.seeding import keyed_seed

PLUGIN = "tastemaker_plugin_"
"""Prefix of the module names of loaded plugins."""


def plugin_code(texts: Collection[str]) -> dict[str, str]:
    """Hash the plugin files whose entries a configuration names.

    Args:
        texts: All texts of the configuration.

    Returns:
        Content of the file, by kind and name of the entry.
    """
    return {
        f"{table.kind} {name}": file_content(Path(str(sys.modules[entry.__module__].__file__)))
        for table in TABLES
        for name, entry in table.known().items()
        if entry.__module__.startswith(PLUGIN) and name in texts
    }


def load_plugins(files: tuple[str, ...]) -> None:
    """Import the user's own files, whose decorators enter new entries in the tables.

    Args:
        files: Paths of Python files.

    Raises:
        TastemakerError: A file is missing or fails to import.
    """
    for file in files:
        try:
            require_file(Path(file))
        except TastemakerError as error:
            raise TastemakerError(f"plugin {file!r}: {error}") from None
        path = Path(file).resolve()
        name = f"{PLUGIN}{path.stem}_{keyed_seed(str(path)):x}"
        spec = importlib.util.spec_from_file_location(name, path)
        if spec is None or spec.loader is None:
            raise TastemakerError(f"plugin {file!r} is not a Python file.")
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        try:
            spec.loader.exec_module(module)
        except TastemakerError:
            raise
        except SystemExit as error:
            raise TastemakerError(
                f"plugin {file!r} ends the program when it is imported (sys.exit({error.code!r}));"
                ' put what is to run as a program under `if __name__ == "__main__":`.'
            ) from error
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            lines = traceback.extract_tb(error.__traceback__)
            place = [f", line {each.lineno}," for each in lines if each.filename == str(path)]
            raise TastemakerError(
                f"plugin {file!r}{place[-1] if place else ''} failed to import:"
                f" {type(error).__name__}: {error}"
            ) from error
