"""Tables of named things: losses, pair rules, scorers, prompt sets, models, recipes.

To add one, decorate a function or class; its keyword-only parameters, annotated with pydantic
`Field`s, are its options, its validation and its help:

    @RULES.register("best_worst")
    def best_worst(group: Group, *, scorer: Annotated[str, Field(description="...")]): ...
"""

from __future__ import annotations

import functools
import importlib
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError, create_model

from tastemaker.core.content_hash import file_content
from tastemaker.core.errors import TastemakerError, nearest
from tastemaker.core.seeding import keyed_seed
from tastemaker.core.values import Options, shown

Entry = TypeVar("Entry", bound=Callable[..., Any])

MEASURED = "measured on the embedded model"
"""Evidence: a comparison in `benchmarks/` has a row of it."""

BY_HAND = "tested against numbers worked out by hand"
"""Evidence: its formula is tested, its effect on images was not measured."""

UNTESTED = "untested at size"
"""Evidence: it runs on small models."""


class Table:
    """A table of named entries of one kind, filled by a decorator.

    Args:
        kind: Word for an entry in messages, for instance "pair rule".
        modules: Modules that register the built-in entries; imported at the first look-up, so that
            a table costs nothing until it is used.
    """

    def __init__(self, kind: str, modules: tuple[str, ...] = ()) -> None:
        self.kind = kind
        self._modules = modules
        self._loaded = False
        self._entries: dict[str, Callable[..., Any]] = {}
        self._sources: dict[str, str] = {}
        self._added: set[str] = set()

    def register(
        self, name: str, *, paper: str = "", evidence: str = ""
    ) -> Callable[[Entry], Entry]:
        """Enter the decorated function or class under a name.

        Args:
            name: The name used in YAML and on the command line.
            paper: Publication that it follows, for `doctor`.
            evidence: One of `MEASURED`, `BY_HAND`, `UNTESTED`, for `doctor`.

        Returns:
            A decorator that returns its argument unchanged.

        Raises:
            TastemakerError: The name is taken by another entry.
        """

        def enter(entry: Entry) -> Entry:
            held = self._entries.get(name)
            if held is not None and _origin(held) != _origin(entry):
                raise TastemakerError(f"{self.kind} {name!r} is registered twice; rename one.")
            self._entries[name] = entry
            self._sources[name] = "; ".join(each for each in (paper, evidence) if each)
            return entry

        return enter

    def add(self, function: Callable[..., Any]) -> str:
        """Enter a function or class that was given in place of a name.

        Args:
            function: Of a file or a notebook's cell, with all its options as parameters.

        Returns:
            Its name: where it is defined, and a hash of its source. A changed function has another
            name, so that a training does not go on with it.

        Raises:
            TastemakerError: It has no name or no source, or depends on variables around it.
        """
        called = getattr(function, "__qualname__", repr(function))
        if getattr(function, "__closure__", None):
            raise TastemakerError(
                f"{self.kind} {called} uses variables of the function around it, which nothing"
                " records; make them keyword-only parameters, its options."
            )
        try:
            source = inspect.getsource(function)
        except (OSError, TypeError):
            raise TastemakerError(
                f"{self.kind} {called} has no source that could be recorded; define it by `def` or"
                " `class` in a file or a notebook's cell."
            ) from None
        name = f"{function.__module__}.{called}@{keyed_seed(source):016x}"
        self._entries[name] = function
        self._added.add(name)
        return name

    def known(self) -> dict[str, Callable[..., Any]]:
        """Return what has been registered so far, by name."""
        return dict(self._entries)

    def names(self) -> list[str]:
        """Return every registered name, sorted."""
        self._load()
        return sorted(self._entries)

    def __contains__(self, name: object) -> bool:
        self._load()
        return name in self._entries

    def entry(self, name: str) -> Callable[..., Any]:
        """Return the function or class registered under a name.

        Raises:
            TastemakerError: No such name; the message suggests the nearest known one.
        """
        self._load()
        if name not in self._entries:
            raise TastemakerError(f"unknown {self.kind} {name!r}. {nearest(name, self._entries)}")
        return self._entries[name]

    def schema(self, name: str) -> type[BaseModel]:
        """Return the options of an entry as a pydantic model, read from its signature."""
        return _options_of(name, self.entry(name))

    def validate(self, name: str, options: dict[str, Any]) -> dict[str, Any]:
        """Check options against the entry's signature and fill in its defaults.

        Args:
            name: A registered name.
            options: Option values, as read from YAML or the command line.

        Returns:
            All options of the entry, typed.

        Raises:
            TastemakerError: An unknown name or option, a missing option, or a bad value.
        """
        schema = self.schema(name)
        try:
            checked = schema(**options)
        except ValidationError as error:
            what = "; ".join(_explain(issue, schema) for issue in error.errors())
            raise TastemakerError(f"{self.kind} {name!r}: {what}") from None
        return {key: getattr(checked, key) for key in schema.model_fields}

    def bind(self, name: str, options: dict[str, Any]) -> Callable[..., Any]:
        """Return the entry with its options applied; data arguments are still to come."""
        return functools.partial(self.entry(name), **self.validate(name, options))

    def describe(self, name: str) -> str:
        """Return an entry's docstring's first line, paper and evidence, then its options."""
        text = (inspect.getdoc(self.entry(name)) or "").partition("\n")[0]
        if source := self._sources.get(name):
            text += f" [{source}]"
        options = []
        for key, field in self.schema(name).model_fields.items():
            default = "required" if field.is_required() else repr(field.default)
            options.append(f"\n      {key} ({default}): {field.description}")
        return text + "".join(options)

    def code(self, *names: str) -> dict[str, str]:
        """Hash the files that entries from outside this package come from.

        Args:
            *names: Registered names.

        Returns:
            Name to hash of each such entry: another code under its name is another entry.
        """
        files = {
            name: getattr(sys.modules.get(self.entry(name).__module__), "__file__", None)
            for name in names
            if name not in self._added  # its name tells its source
            and self.entry(name).__module__.partition(".")[0] != __name__.partition(".")[0]
        }
        return {name: file_content(Path(file)) for name, file in files.items() if file}

    def _load(self) -> None:
        if self._loaded:
            return
        self._loaded = True
        try:
            for module in self._modules:
                importlib.import_module(module)
        except BaseException:
            self._loaded = False
            raise


def _origin(entry: Callable[..., Any]) -> tuple[str, str]:
    return entry.__module__, entry.__qualname__


@functools.cache
def _options_of(name: str, entry: Callable[..., Any]) -> type[BaseModel]:
    target = entry.__init__ if inspect.isclass(entry) else entry
    # Only options are evaluated: a return type may name what is imported for checking alone.
    scope = getattr(target, "__globals__", {})
    fields: dict[str, Any] = {
        parameter.name: (
            Any
            if parameter.annotation is parameter.empty
            else _evaluated(parameter.annotation, scope),
            ... if parameter.default is parameter.empty else parameter.default,
        )
        for parameter in inspect.signature(target).parameters.values()
        if parameter.kind is parameter.KEYWORD_ONLY
    }
    return create_model(f"{name} options", __base__=Options, **fields)


def _evaluated(annotation: Any, scope: dict[str, Any]) -> Any:
    return eval(annotation, scope) if isinstance(annotation, str) else annotation


def _explain(issue: Any, schema: type[BaseModel]) -> str:
    where = ".".join(str(part) for part in issue["loc"])
    if issue["type"] == "extra_forbidden":
        return f"unknown option {where!r}. {nearest(where, schema.model_fields)}"
    if issue["type"] == "missing":
        return f"option {where!r} is required"
    return f"option {where!r} = {shown(issue['input'])}: {issue['msg']}"


MODELS = Table("model", ("tastemaker.nano.entries",))
PROMPTS = Table("prompt set", ("tastemaker.datasets.prompts.sources", "tastemaker.nano.entries"))
_FORMATS = (
    "tastemaker.datasets.formats.pick_a_pic",
    "tastemaker.datasets.formats.webdataset",
    "tastemaker.datasets.formats.folder",
    "tastemaker.datasets.formats.twins",
    "tastemaker.datasets.formats.rankings",
    "tastemaker.datasets.formats.label_studio",
)
COMPARISONS = Table("comparison format", (*_FORMATS, "tastemaker.datasets.formats.hub"))
LAYOUTS = Table("export format", (*_FORMATS, "tastemaker.datasets.formats.captions"))
CAPTIONED = Table(
    "format of captioned images", ("tastemaker.datasets.captioned", "tastemaker.nano.entries")
)
SUBJECTS = Table("subject", ("tastemaker.nano.entries",))
SCORERS = Table(
    "scorer",
    (
        "tastemaker.scorers.clip",
        "tastemaker.scorers.preference",
        "tastemaker.scorers.image_reward",
        "tastemaker.scorers.aesthetic",
        "tastemaker.scorers.quality",
        "tastemaker.scorers.similarity",
        "tastemaker.scorers.identity",
        "tastemaker.scorers.colour",
        "tastemaker.nano.entries",
    ),
)
ENSEMBLES = Table("ensemble of scorers", ("tastemaker.scorers.ensembles",))
METRICS = Table("metric", ("tastemaker.metrics.named",))
RULES = Table("pair rule", ("tastemaker.pairing.pair", "tastemaker.pairing.angle"))
JOINS = Table("join rule", ("tastemaker.pairing.join",))
LOSSES = Table("loss", ("tastemaker.losses",))
CREDITS = Table("credit scheme", ("tastemaker.training.preference.credit",))
RECIPES = Table("recipe", ("tastemaker.recipes",))
TABLES = (
    RECIPES,
    MODELS,
    PROMPTS,
    COMPARISONS,
    LAYOUTS,
    CAPTIONED,
    SUBJECTS,
    SCORERS,
    ENSEMBLES,
    METRICS,
    RULES,
    JOINS,
    LOSSES,
    CREDITS,
)
