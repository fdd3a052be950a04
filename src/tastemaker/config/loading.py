"""Load a run: a YAML file or a shipped run, overrides, defaults, and every mistake named.

A run is a YAML file that names a recipe and fills the sections of `config/`. `load` reads it,
applies `key=value` overrides, fills every default, checks every registered name and its options,
and reports each mistake with its path and the nearest known name.
"""

from __future__ import annotations

import importlib.resources
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from tastemaker.config.foreign_names import own_name
from tastemaker.config.runs import RunConfig, run_class
from tastemaker.config.sections import Section, section_class
from tastemaker.core import yaml_reading
from tastemaker.core.errors import TastemakerError, nearest
from tastemaker.core.plugins import load_plugins
from tastemaker.core.values import shown

AnySection = TypeVar("AnySection", bound=Section)


def load(source: str, overrides: tuple[str, ...] = ()) -> RunConfig:
    """Read a run from a YAML file or from the runs shipped with the package.

    Args:
        source: Path of a YAML file, or the name of a shipped run such as `demo`.
        overrides: `key=value` strings; keys are dotted paths, values are YAML.

    Returns:
        The run with every default filled and every name checked.

    Raises:
        TastemakerError: The file is missing or is not YAML, or any value is wrong.
    """
    data = read_yaml(_find(source))
    data.setdefault("name", Path(source).stem)
    for override in overrides:
        _override(data, override)
    data["plugins"] = _plugins(data)
    load_plugins(data["plugins"])
    recipe = str(data.get("recipe", RunConfig.model_fields["recipe"].default))
    try:
        kind = run_class(recipe)
    except TastemakerError as error:
        raise TastemakerError(f"{source}: {error}") from None
    return parse(kind, data, source)


def parse(kind: type[AnySection], data: dict[str, Any], source: str) -> AnySection:
    """Check plain data against a section.

    Args:
        kind: The section's class.
        data: Plain values, as YAML gives them.
        source: What the data came from, for messages.

    Returns:
        The section.

    Raises:
        TastemakerError: One line per mistake, each with its path.
    """
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        lines = [_explain(kind, issue) for issue in _mistakes(error)]
        raise TastemakerError("\n".join(f"{source}: {line}" for line in lines)) from None


def _mistakes(error: ValidationError) -> list[Any]:
    """Return the mistakes, without lists that are too short for the lack of a mistaken item."""
    issues = error.errors()
    around = {issue["loc"][:end] for issue in issues for end in range(len(issue["loc"]))}
    return [each for each in issues if each["type"] != "too_short" or each["loc"] not in around]


def section_of(
    kind: type[AnySection], config: AnySection | None, options: dict[str, Any]
) -> AnySection:
    """Return a section, with some options in place of its own.

    Args:
        kind: The section's class.
        config: A section to start from; None: the defaults.
        options: By name, as Python values.

    Raises:
        TastemakerError: One is unknown or wrong.
    """
    if config is None:
        return parse(kind, options, kind.__name__)
    given = {name: getattr(config, name) for name in config.model_fields_set}
    return parse(kind, {**given, **options}, kind.__name__)


def section(kind: type[AnySection], file: str | None, overrides: tuple[str, ...]) -> AnySection:
    """Read one command's section from an optional YAML file and overrides.

    Args:
        kind: The section's class.
        file: A YAML file with this section's keys, or None.
        overrides: `key=value` strings.

    Returns:
        The section.

    Raises:
        TastemakerError: As for `load`.
    """
    data = read_yaml(Path(file)) if file else {}
    for override in overrides:
        _override(data, override)
    load_plugins(_plugins(data))
    data.pop("plugins", None)
    return parse(kind, data, file or "command line")


def dump(config: Section) -> str:
    """Write a section as YAML that loads back to an equal section."""
    return to_yaml(config.model_dump(mode="json"))


def to_yaml(data: Any, **style: Any) -> str:
    """Write plain values as YAML that loads back to equal ones.

    Args:
        data: What JSON can hold.
        **style: Further options of PyYAML's.
    """
    text = yaml.safe_dump(data, sort_keys=False, allow_unicode=True, **style)
    # PyYAML writes some control characters raw that it reads back as line ends.
    same = text.replace("\n", "").isprintable() or yaml.safe_load(text) == data
    return text if same else yaml.safe_dump(data, sort_keys=False, allow_unicode=False, **style)


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping.

    Raises:
        TastemakerError: The file is missing, is not YAML, or is not a mapping with names for keys.
    """
    data = yaml_reading.read_yaml(path)
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise TastemakerError(f"{path} must hold `key: value` lines, not a {type(data).__name__}.")
    unnamed = next((key for key in data if not isinstance(key, str)), None)
    if unnamed is not None:
        raise TastemakerError(f"{path}: the key {unnamed!r} is not a name; write an option's.")
    return data


def shipped_runs() -> dict[str, Path]:
    """Return the runs that come with the package, by name."""
    folder = Path(str(importlib.resources.files("tastemaker") / "recipes"))
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def _plugins(data: dict[str, Any]) -> tuple[str, ...]:
    given = data.get("plugins") or ()
    files = [given] if isinstance(given, str) else given
    if not isinstance(files, (list, tuple)) or not all(isinstance(file, str) for file in files):
        raise TastemakerError(f"plugins = {given!r}: name Python files, as plugins=[mine.py].")
    return tuple(files)


def _find(source: str) -> Path:
    path = Path(source)
    if path.suffix in {".yaml", ".yml"} or path.is_file():
        return path
    runs = shipped_runs()
    if source not in runs:
        raise TastemakerError(f"no run named {source!r}, and no such file. {nearest(source, runs)}")
    return runs[source]


def _override(data: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise TastemakerError(f"override {override!r} is not key=value, e.g. train.max_steps=100.")
    value = yaml_reading.parse_yaml(text, f"override {override!r}: the value") if text else ""
    *parents, last = key.split(".")
    for parent in parents:
        given = data.get(parent)
        if isinstance(given, str):
            given = {"name": given}
        if not isinstance(given, dict | None):
            raise TastemakerError(
                f"override {override!r}: {parent!r} is {shown(given)}, which has no keys; give"
                f" {key.partition(f'{parent}.')[0]}{parent}= as a whole."
            )
        data[parent] = dict(given or {})
        data = data[parent]
    data[last] = value


def _explain(kind: type[Section], issue: Any) -> str:
    where = ".".join(str(part) for part in issue["loc"])
    if issue["type"] == "extra_forbidden":
        *parents, name = map(str, issue["loc"])
        section = _section_at(kind, parents)
        if section is not None and (own := own_name(name, section)) is not None:
            return f"{where}: here it is {'.'.join([*parents, own])}."
        return f"unknown key {where!r}. {nearest(name, section.model_fields if section else ())}"
    if issue["type"] == "missing":
        return f"{where!r} is required."
    if issue["type"] == "value_error":
        message = str(issue["ctx"]["error"])
        return f"{where}: {message}" if where else message
    text = f"{where!r} = {shown(issue['input'])}: {issue['msg']}"
    if issue["type"] == "string_type" and not isinstance(issue["input"], list | dict | None):
        return f"{text}. YAML reads it as a {type(issue['input']).__name__}; write it in quotes."
    return text


def _section_at(kind: type[Section] | None, path: Sequence[str]) -> type[Section] | None:
    """Return the section at a path; None where a registered entry's options are there."""
    for part in path:
        kind = kind and section_class(kind.model_fields[part].annotation)
    return kind
