"""Write a section as YAML in which every option has its meaning and default above it."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from tastemaker.config.choices import Choice
from tastemaker.config.loading import to_yaml
from tastemaker.config.sections import Section, section_class

WIDTH = 100

LAST = {"evaluate", "report"}
"""Sections of a run that come after those of its own kind."""


def commented(section: Section) -> str:
    """Write a section, for instance a whole run, as YAML that loads back to an equal one.

    Args:
        section: The section.

    Returns:
        Every option with its value below its description and default; those of sections that are
        off as comments.

    Example:
        >>> from tastemaker.config.sections import ReportConfig
        >>> print(commented(ReportConfig(strips=2)))
        # Prompts shown as before/after strips. Default: 8.
        strips: 2
        # Best and worst pairs shown. Default: 6.
        pairs: 6
        <BLANKLINE>
    """
    return "\n".join(_section_lines(section)) + "\n"


def default_text(field: FieldInfo) -> str:
    """Write the default of an option in a few words."""
    if field.is_required():
        return "(required)"
    value = field.default
    if isinstance(value, Choice):
        return value.name
    if isinstance(value, tuple):
        return f"[{', '.join(map(str, value))}]"
    if isinstance(value, bool):
        return str(value).lower()
    return "null" if value is None else str(value) or "''"


def _section_lines(section: Section) -> Iterator[str]:
    data, fields = section.model_dump(mode="json"), type(section).model_fields
    for name in sorted(fields, key=lambda name: name in LAST):
        field = fields[name]
        value, kind = getattr(section, name), section_class(field.annotation)
        yield from _comment(field, kind)
        if isinstance(value, Section | Choice):
            yield f"{name}:"
            yield from _indented(_lines(value, data[name]))
        elif isinstance(value, tuple) and value and isinstance(value[0], Choice):
            yield f"{name}:"
            for choice, given in zip(value, data[name], strict=True):
                first, *others = _choice_lines(choice, given)
                yield f"  - {first}"
                yield from _indented(others, "    ")
        else:
            yield from _entry(name, data[name])
            if kind is not None:
                yield from _indented(_absent_lines(kind), "#   ")


def _lines(value: Section | Choice, data: dict[str, Any]) -> Iterator[str]:
    return _section_lines(value) if isinstance(value, Section) else _choice_lines(value, data)


def _choice_lines(choice: Choice, data: dict[str, Any]) -> Iterator[str]:
    """The name of a registered entry and its options."""
    options = choice.table.schema(choice.name).model_fields
    for name, value in data.items():
        if name in options:
            yield from _comment(options[name])
        yield from _entry(name, value)


def _absent_lines(kind: type[BaseModel]) -> Iterator[str]:
    """The options of a section that is off."""
    for name, field in kind.model_fields.items():
        inside = section_class(field.annotation)
        yield from _comment(field, inside)
        empty = inside is not None or field.is_required()
        yield f"{name}:" if empty else f"{name}: {default_text(field)}"
        if inside:
            yield from _indented(_absent_lines(inside))


def _comment(field: FieldInfo, kind: type[Section] | None = None) -> Iterator[str]:
    """Return the meaning of an option, with its default where that is a plain value."""
    text = field.description or (kind.__doc__ if kind else "") or ""
    text = " ".join(text.split())
    if kind is None:
        if field.is_required():
            text = f"{text} Required."
        elif field.default is not None:
            text = f"{text} Default: {default_text(field)}."
    yield from textwrap.wrap(
        text, WIDTH, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False
    )


def _entry(name: str, value: Any) -> Iterator[str]:
    style = None if isinstance(value, list | dict) else False
    yield from to_yaml({name: value}, default_flow_style=style, width=WIDTH).splitlines()


def _indented(lines: Iterable[str], by: str = "  ") -> Iterator[str]:
    return (f"{by}{line}" for line in lines)
