"""Read YAML of plain values: no repeated keys, no dates, nothing larger than a configuration."""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import Any

from tastemaker.core.errors import TastemakerError
from tastemaker.core.reading import (
    MOST_DEPTH,
    MOST_DIGITS,
    read_text,
    require_unicode,
    too_deep,
    walk,
)

MOST_YAML = 1 << 20
"""Bytes of a YAML file: a megabyte takes seconds to parse."""

MOST_NODES = 100_000
"""Values in YAML; those behind an alias count at each of its uses."""


def parse_yaml(text: str, where: object) -> Any:
    """Parse YAML of plain values; dates stay text, and no key may be given twice.

    Args:
        text: One document.
        where: File or option, for messages.

    Raises:
        TastemakerError: It is not YAML, names a key twice, or is larger or deeper than any
            configuration, also by aliases of aliases.
    """
    import yaml

    try:
        value = yaml.load(text, _loader())  # a SafeLoader of ours
    except RecursionError:
        raise too_deep(where) from None
    # Beside its own errors PyYAML lets through what Python says of numbers, bytes and dates.
    except (
        yaml.YAMLError,
        ArithmeticError,
        AttributeError,
        LookupError,
        TypeError,
        ValueError,
    ) as error:
        raise TastemakerError(f"{where} is not readable as YAML: {_yaml_fault(error)}.") from None
    _check_values(value, where)
    return value


def read_yaml(path: Path) -> Any:
    """Read a YAML file.

    Raises:
        TastemakerError: As for `read_text` and `parse_yaml`.
    """
    return parse_yaml(read_text(path, MOST_YAML), path)


DATE = "tag:yaml.org,2002:timestamp"


@functools.cache
def _loader() -> Any:
    """PyYAML's loader of plain values, without repeated keys and merges without end.

    Dates are texts, and so are numbers that mean something else in YAML 1.1, PyYAML's, where 010 is
    eight and 1:30 is ninety. What is left out is quoted when written.
    """
    import yaml

    numbers = {
        "tag:yaml.org,2002:int": r"[-+]?(0|[1-9][0-9]*)$|0x[0-9a-fA-F]+$",
        "tag:yaml.org,2002:float": r"[-+]?(\.[0-9]+|(0|[1-9][0-9]*)\.[0-9]*)([eE][-+][0-9]+)?$"
        r"|[-+]?\.(inf|Inf|INF)$|\.(nan|NaN|NAN)$",
    }

    class Loader(yaml.SafeLoader):
        yaml_implicit_resolvers = {  # noqa: RUF012
            first: [each for each in found if each[0] not in {*numbers, DATE}]
            for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
        }

        def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
            node: yaml.MappingNode = super().compose_mapping_node(anchor)
            seen = set()
            for key, _ in node.value:
                if isinstance(key, yaml.ScalarNode) and key.value != "<<":
                    if key.value in seen:
                        raise ValueError(
                            f"the key {key.value!r} is given twice, again in line"
                            f" {key.start_mark.line + 1}; keep one"
                        )
                    seen.add(key.value)
            return node

        def flatten_mapping(self, node: yaml.MappingNode) -> None:
            super().flatten_mapping(node)
            if len(node.value) > MOST_NODES:  # each level of merges may double it
                raise ValueError(f"merges (<<) give more than {MOST_NODES} keys")

    for tag, form in numbers.items():
        Loader.add_implicit_resolver(tag, re.compile(form), list("-+.0123456789"))
    return Loader


def _yaml_fault(error: Exception) -> str:
    """One line of PyYAML's error: the problem and its place."""
    problem, mark = getattr(error, "problem", None), getattr(error, "problem_mark", None)
    if problem is None or mark is None:
        return " ".join(str(error).split())
    return f"{problem} (line {mark.line + 1}, column {mark.column + 1})"


def _check_values(value: Any, where: object) -> None:
    """Refuse values that are too deep, too many, or not valid as number or text."""
    for number, (depth, held) in enumerate(walk(value)):
        if depth > MOST_DEPTH:
            raise too_deep(where)
        if number == MOST_NODES:
            raise TastemakerError(f"{where} has more than {number} values; is it a run's file?")
        if isinstance(held, str):
            require_unicode(held, str(where))
        elif isinstance(held, int) and abs(held) >= 10**MOST_DIGITS:
            raise TastemakerError(f"{where} has a number of more than {MOST_DIGITS} digits.")
