"""Commands as functions: a section, or its options as keyword arguments."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from tastemaker.config.loading import section_of
from tastemaker.config.sections import Section
from tastemaker.core.errors import TastemakerError

Result = TypeVar("Result")


def takes_options(
    kind: type[Section],
) -> Callable[[Callable[..., Result]], Callable[..., Result]]:
    """Let a command be called with keyword arguments in place of its section, or beside it.

        train(config, pairs, output)
        train(pairs="runs/a/pairs", output="runs/a/policy", model="nano", max_steps=100)

    Folders may be texts. Options beside a section replace those of the section.

    Args:
        kind: The section, the command's first parameter.

    Returns:
        A decorator.
    """

    def decorate(command: Callable[..., Result]) -> Callable[..., Result]:
        name, *places = inspect.signature(command).parameters

        @functools.wraps(command)
        def call(*given: Any, **named: Any) -> Result:
            config = given[0] if given else named.pop(name, None)
            if config is not None and not isinstance(config, kind):
                raise TastemakerError(
                    f"{command.__name__}: {config!r} is not a {kind.__name__}; give one first, or"
                    f" {', '.join(places)} and the options by name."
                )
            folders = {place: _path(named.pop(place)) for place in places if place in named}
            if config is None or named:
                config = section_of(kind, config, named)
            return command(config, *map(_path, given[1:]), **folders)

        return call

    return decorate


def _path(folder: Any) -> Any:
    return Path(folder) if isinstance(folder, str) else folder
