"""Registered names with their options, checked before a model loads."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr

from tastemaker.core import registry
from tastemaker.core.errors import TastemakerError, nearest
from tastemaker.core.values import Name, Weights, checked_name


class Choice(BaseModel):
    """A registered name with its options, written flat: `{name: dpo, beta: 5000}` or just `dpo`.

    From Python, a function may be given in place of the name.
    """

    model_config = ConfigDict(
        frozen=True, extra="allow", protected_namespaces=(), allow_inf_nan=False
    )
    name: str
    _table: registry.Table | None = PrivateAttr(None)

    @property
    def table(self) -> registry.Table:
        """The table of the registered name."""
        assert self._table is not None, "a choice is made by a section's field"
        return self._table

    @property
    def options(self) -> dict[str, Any]:
        """The options without the name."""
        return dict(self.model_extra or {})


TAKEN = {
    *("candidate_id", "prompt_id", "prompt", "seed", "source", "source_id", "timestep", "model"),
    *("image", "latents", "latents_shape", "original_size", "crops_coords_top_left", "content"),
    "guidance_scale",
}
"""Columns of a pool and of tables of scores that no scorer can have."""


class ScorerChoice(Choice):
    """A scorer or an ensemble of them; `label` names its column where one is used twice."""

    label: Name | None = None

    @property
    def column(self) -> str:
        """Name of the column of scores."""
        return self.label or self.name

    @property
    def network(self) -> tuple[str, dict[str, Any]]:
        """Name and weights: equal ones are one network, under whatever label and options."""
        fields = scorer_table(self.name).schema(self.name).model_fields
        marked = [key for key, field in fields.items() if Weights() in field.metadata]
        return self.name, {key: self.options[key] for key in marked}

    @property
    def members(self) -> tuple[str, ...]:
        """Columns that an ensemble is worked out from; a scorer of pictures has none."""
        return tuple(self.options["of"]) if scorer_table(self.name) is registry.ENSEMBLES else ()


def scorer_table(name: str) -> registry.Table:
    """Return the table of a scorer's name: ensembles or scorers; a plug-in's name wins."""
    if name in registry.ENSEMBLES and name not in registry.SCORERS:
        return registry.ENSEMBLES
    return registry.SCORERS


class LossTerm(Choice):
    """A further loss with its weight in the sum."""

    weight: float = 1.0


def _expanded(value: Any) -> Any:
    """Return a bare name as the choice of that name."""
    return {"name": value} if isinstance(value, str) else value


def _added(table: registry.Table, function: Callable[..., Any]) -> str:
    try:
        return table.add(function)
    except TastemakerError as error:
        raise ValueError(str(error)) from None


def _checked(choice: Any, table: registry.Table) -> Any:
    """Return the choice with all options of its entry in a table, typed."""
    try:
        checked = choice.model_copy(update=table.validate(choice.name, choice.options))
    except TastemakerError as error:
        raise ValueError(str(error)) from None
    checked._table = table
    return checked


def _choice(table: registry.Table, default: str | None = None, kind: type[Choice] = Choice) -> Any:
    """Return the annotated type of a field that names an entry of `table`."""

    def expand(value: Any) -> Any:
        if callable(value):
            value = {"name": value}
        if isinstance(value, dict) and default is not None:
            value = {"name": default, **value}
        if isinstance(value, dict) and callable(value.get("name")):
            return {**value, "name": _added(table, value["name"])}
        return _expanded(value)

    def check(choice: Choice) -> Choice:
        return _checked(choice, table)

    return Annotated[kind, BeforeValidator(expand), AfterValidator(check)]


def _known_scorer(choice: ScorerChoice) -> ScorerChoice:
    """Check the name and options of a scorer or an ensemble."""
    table = scorer_table(choice.name)
    if choice.name not in table:
        known = [*registry.SCORERS.names(), *registry.ENSEMBLES.names()]
        raise ValueError(f"unknown scorer {choice.name!r}. {nearest(choice.name, known)}")
    if checked_name(choice.column).casefold() in TAKEN:
        raise ValueError(f"a pool has a column {choice.column!r} already; give another label")
    if table is registry.ENSEMBLES and "of" not in table.schema(choice.name).model_fields:
        raise ValueError(f"ensemble {choice.name!r} has no option `of`, which names its members.")
    checked: ScorerChoice = _checked(choice, table)
    return checked


def _prompt_source(value: Any) -> Any:
    """Read a name as a prompt set where one is registered, otherwise as the path of a file."""
    given = _expanded(value)
    if (
        isinstance(given, dict)
        and given.get("name") not in registry.PROMPTS
        and "path" not in given
    ):
        options = {key: option for key, option in given.items() if key != "name"}
        return {"name": "file", "path": given.get("name"), **options}
    return value


def _source(table: registry.Table, format_at: Callable[[str], str]) -> BeforeValidator:
    """Read a name as a format where `table` has it, otherwise as a path of inferred format."""

    def read(value: Any) -> Any:
        given = _expanded(value)
        if not isinstance(given, dict) or given.get("name") in table:
            return value
        if "name" in given and "path" in given:
            return value
        options = {key: option for key, option in given.items() if key not in {"name", "path"}}
        path = given.get("path", given.get("name"))
        found = {} if path is None else {"path": path}
        return {"name": format_at(str(path)), **found, **options}

    return BeforeValidator(read)


def _captioned_at(name: str) -> str:
    """Return the format of captioned images by a path: parquet or a folder."""
    return "parquet" if name.lower().endswith(".parquet") else "folder"


def _compared_at(name: str) -> str:
    """Return the format of compared images by a file's name or a folder's contents."""
    path = Path(name)
    # A name that is too long for any file is reported when it is opened.
    held = set(os.listdir(path)) if os.path.isdir(path) else set()
    if any(each.lower().endswith((".tar", ".tar.gz", ".tgz")) for each in (path.name, *held)):
        return "webdataset"
    if path.suffix.lower() in {".json", ".jsonl"}:
        return "rankings"
    if "metadata.jsonl" in held:
        return "folder"
    if {"chosen", "rejected"} <= held:
        return "twins"
    if "rankings.json" in held:
        return "rankings"
    if "tasks.json" in held:
        return "label_studio"
    return "pick_a_pic"


def _has_gradient(choice: ScorerChoice) -> ScorerChoice:
    """Refuse a scorer that no gradient passes through."""
    able = [name for name in registry.SCORERS.names() if _takes_pixels(name)]
    if choice.name not in able:
        raise ValueError(
            f"scorer {choice.name!r} is not differentiable: it has no `score_pixels`."
            f" Those that have: {', '.join(able)}"
        )
    return choice


def _takes_pixels(name: str) -> bool:
    """Look for `score_pixels` on a scorer's class, or on the class that its factory returns."""
    entry = registry.SCORERS.entry(name)
    if inspect.isclass(entry):
        return hasattr(entry, "score_pixels")
    try:
        return hasattr(get_type_hints(entry).get("return"), "score_pixels")
    except NameError:  # an annotation that names what is imported for type checking alone
        return False


if TYPE_CHECKING:
    Prompts = Choice
    Comparisons = Choice
    Layout = Choice
    CaptionedSource = Choice
    Metric = Choice
    Rule = Choice
    JoinRule = Choice
    Loss = Choice
    ExtraLoss = LossTerm
    CreditChoice = Choice
    Scorer = ScorerChoice
    PixelScorer = ScorerChoice
else:
    Prompts = Annotated[_choice(registry.PROMPTS), BeforeValidator(_prompt_source)]
    Comparisons = Annotated[
        _choice(registry.COMPARISONS, default="pick_a_pic"),
        _source(registry.COMPARISONS, _compared_at),
    ]
    Layout = _choice(registry.LAYOUTS, default="pick_a_pic")
    CaptionedSource = Annotated[
        _choice(registry.CAPTIONED, default="folder"), _source(registry.CAPTIONED, _captioned_at)
    ]
    Scorer = Annotated[ScorerChoice, BeforeValidator(_expanded), AfterValidator(_known_scorer)]
    PixelScorer = Annotated[Scorer, AfterValidator(_has_gradient)]
    Metric = _choice(registry.METRICS)
    Rule = _choice(registry.RULES, default="best_worst")
    JoinRule = _choice(registry.JOINS, default="best_worst")
    Loss = _choice(registry.LOSSES, default="dpo")
    ExtraLoss = _choice(registry.LOSSES, kind=LossTerm)
    CreditChoice = _choice(registry.CREDITS, default="uniform")


def _columns_differ(scorers: tuple[ScorerChoice, ...]) -> tuple[ScorerChoice, ...]:
    # Columns are files: some disks do not tell capitals from small letters.
    columns = [scorer.column.casefold() for scorer in scorers]
    twice = next((each.column for each in scorers if columns.count(each.column.casefold()) > 1), 0)
    if twice:
        raise ValueError(f"scorer {twice!r} is named twice; give one a label: ...")
    return scorers


def _members_come_first(scorers: tuple[ScorerChoice, ...]) -> tuple[ScorerChoice, ...]:
    """Refuse an ensemble of a column that is not there yet when its turn comes."""
    before: list[str] = []
    for scorer in scorers:
        missing = [member for member in scorer.members if member not in before]
        if missing:
            raise ValueError(
                f"ensemble {scorer.column!r} is of {missing[0]!r}, which no scorer before it in the"
                f" list gives; name it there. {nearest(missing[0], before)}"
            )
        before.append(scorer.column)
    return scorers


def _no_ensemble(scorers: tuple[ScorerChoice, ...]) -> tuple[ScorerChoice, ...]:
    """Refuse ensembles where pools are compared with one another."""
    for scorer in scorers:
        if scorer.members:
            raise ValueError(
                f"{scorer.name!r} puts scores on the scale of one pool, and every model has a pool"
                f" of its own: name its scorers alone ({', '.join(scorer.members)}); each is"
                " compared."
            )
    return scorers


Scorers = Annotated[
    tuple[Scorer, ...],
    Field(min_length=1),
    AfterValidator(_columns_differ),
    AfterValidator(_members_come_first),
]
Judges = Annotated[Scorers, AfterValidator(_no_ensemble)]
