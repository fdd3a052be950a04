"""Values that sections of a run inherit: from the run, from common values, from the subject."""

from __future__ import annotations

from typing import Any

from tastemaker.config.sections import Section, section_class


def with_known(choice: Any, known: dict[str, dict[str, Any]]) -> Any:
    """Add to a named choice what is known for its name and what it does not say itself."""
    given = {"name": choice} if isinstance(choice, str) else choice
    if not isinstance(given, dict) or given.get("name") not in known:
        return choice
    return {**known[given["name"]], **given}


def merged_deep(common: dict[str, Any], own: Any) -> dict[str, Any]:
    """Merge a stage's own values over the common ones, key by key at every depth."""
    merged = dict(common)
    for key, value in (own or {}).items():
        both = isinstance(merged.get(key), dict) and isinstance(value, dict)
        # A named choice is one thing: another name does not inherit the old one's options.
        merged[key] = merged_deep(merged[key], value) if both and "name" not in value else value
    return merged


def handed_down(kind: type[Section], data: dict[str, Any], down: dict[str, Any]) -> dict[str, Any]:
    """Return the sections of `data` with what they inherit, at every depth."""
    handed = {}
    for name, field in kind.model_fields.items():
        section = section_class(field.annotation)
        given = data.get(name, {})
        if section is None or not isinstance(given, dict):
            continue
        if field.default is None and name not in data:
            continue
        shared = {key: value for key, value in down.items() if key in section.model_fields}
        inner = {**shared, **given}
        handed[name] = inner | handed_down(section, inner, down)
    return handed
