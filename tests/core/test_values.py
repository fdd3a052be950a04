"""Option values of every section and registered entry: as they are meant, or one sentence."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from tastemaker.cli.commands import COMMANDS
from tastemaker.config.choices import TAKEN, Scorers
from tastemaker.config.exchange import ExportConfig
from tastemaker.config.loading import parse, section
from tastemaker.config.runs import PersonalRun, PreferenceRun, RealRun, RewardRun
from tastemaker.config.sections import Section, section_class
from tastemaker.config.training import TrainConfig
from tastemaker.core.errors import TastemakerError
from tastemaker.core.registry import TABLES, Table
from tastemaker.core.values import checked_name, shown
from tastemaker.scorers.cache import CONTENT
from tastemaker.storage.candidates import candidate_table

HOSTILE: tuple[Any, ...] = (
    *(math.inf, -math.inf, math.nan, "inf", "nan", ".inf"),
    *(-1, 0, 10**30, -(10**30), 1e300, "1e3", "\u0661\u0662", "", " ", "\0", "a\0b", "\ud800"),
    *(True, False, None, [], [[]], [""], ["a", "a"], [math.nan], [True], {}, {"": 1}),
    *({"name": ""}, {"name": "x" * 300}, {"a": {"b": {"c": 1}}}, "../x", "x" * 300),
)


def sections() -> Iterator[type[Section]]:
    """Every section of every command and kind of run, those inside others too."""
    waiting: list[type[Section]] = [PreferenceRun, RealRun, PersonalRun, RewardRun]
    waiting += [kind for verb in COMMANDS for kind in verb.kinds]
    found = set()
    while waiting:
        kind = waiting.pop()
        if kind not in found:
            found.add(kind)
            yield kind
            inside = (section_class(field.annotation) for field in kind.model_fields.values())
            waiting += [each for each in inside if each is not None]


def entries() -> Iterator[tuple[Table, str]]:
    """Every registered entry, with its table."""
    return ((table, name) for table in TABLES for name in table.names())


@pytest.mark.parametrize("kind", list(sections()), ids=lambda kind: kind.__name__)
def test_any_value_of_any_key_is_taken_or_named(kind: type[Section]) -> None:
    for key in kind.model_fields:
        for value in HOSTILE:
            with contextlib.suppress(TastemakerError):
                parse(kind, {key: value}, "here")


@pytest.mark.parametrize(
    ("table", "name"), list(entries()), ids=lambda each: getattr(each, "kind", each)
)
def test_any_value_of_any_option_is_taken_or_named(table: Table, name: str) -> None:
    for key in table.schema(name).model_fields:
        for value in HOSTILE:
            with contextlib.suppress(TastemakerError):
                table.validate(name, {key: value})


@pytest.mark.parametrize("kind", list(sections()), ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("value", [math.inf, math.nan, [math.nan, 0.5], {"a": math.inf}])
def test_no_section_takes_a_number_that_is_not_finite(kind: type[Section], value: Any) -> None:
    for key, field in kind.model_fields.items():
        if "Any" in str(field.annotation):  # what stages have in common, checked as theirs
            continue
        with pytest.raises(ValidationError) as caught:
            kind.model_validate({key: value, "nothing": 1})
        assert any(issue["loc"][0] == key for issue in caught.value.errors()), key


@pytest.mark.parametrize("loss", ["{name: dpo, beta: .inf}", "{name: dpo, beta: .nan}"])
@pytest.mark.parametrize("key", ["loss", "extra_losses.0"])
def test_no_registered_entry_takes_one(loss: str, key: str) -> None:
    override = f"loss={loss}" if key == "loss" else f"extra_losses=[{loss}]"
    with pytest.raises(TastemakerError, match=rf"{key}: .*'beta' = (inf|nan): .*finite"):
        section(TrainConfig, None, ("model=m", override))
    with pytest.raises(TastemakerError, match=r"extra_losses\.0\.weight' = inf: .*finite"):
        section(TrainConfig, None, ("model=m", "extra_losses=[{name: sft, weight: .inf}]"))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("learning_rate=.nan", "'learning_rate' = nan: .*finite"),
        ("adam_beta1=2", r"'adam_beta1' = 2: .*less than 1"),
        ("adam_beta2=-1", r"'adam_beta2' = -1: .*greater than or equal to 0"),
        ("lora.target_modules=['']", r"lora\.target_modules"),
        ("lora.alpha=.inf", r"'lora\.alpha' = inf"),
        ("max_steps=yes", "max_steps: True is not a number"),
        ("learning_rate=true", "learning_rate: True is not a number"),
        ("max_steps=1.5", "'max_steps' = 1.5"),
        ("max_steps=", "'max_steps' = '': "),
        ("gradient_checkpointing=maybe", "'gradient_checkpointing' = 'maybe'"),
        ("model=yes", "'model' = True: .*reads it as a bool; write it in quotes"),
        ("model=7", "'model' = 7: .*reads it as a int; write it in quotes"),
        ("max_steps.a.b=1", "'max_steps'"),
        ("a.b.c.d=1", "unknown key 'a'"),
    ],
)
def test_a_value_that_is_not_meant_is_named_with_its_key(override: str, message: str) -> None:
    with pytest.raises(TastemakerError, match=message):
        section(TrainConfig, None, ("model=m", override))


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("max_steps=1e3", 1000),
        ("max_steps=1_000", 1000),
        ("max_steps='7'", 7),
        ("max_steps=20.0", 20),
        ("max_steps=\u0661\u0662", 12),
    ],
)
def test_a_whole_number_may_be_written_in_any_way(override: str, value: int) -> None:
    assert section(TrainConfig, None, ("model=m", override)).max_steps == value


def test_a_key_inside_a_list_is_refused_with_the_key_to_give() -> None:
    overrides = ("model=m", "lora.target_modules=[to_q]", "lora.target_modules.0=to_k")
    with pytest.raises(
        TastemakerError, match=r"'target_modules' is \['to_q'\].* give lora\.target_modules="
    ):
        section(TrainConfig, None, overrides)


NO_NAMES = ["", " ", ".hidden", "../x", "a/b", "a\\b", "a\0b", "a\nb", "x" * 101, "dot.", "\u202e"]


@pytest.mark.parametrize("name", NO_NAMES)
def test_what_no_file_can_be_called_is_no_name(name: str) -> None:
    with pytest.raises(ValueError, match="name"):
        checked_name(name)
    with pytest.raises(TastemakerError, match="name"):
        parse(ExportConfig, {"name": name}, "here")
    with pytest.raises(ValidationError):
        TypeAdapter(Scorers).validate_python([{"name": "nano_judge", "label": name}])
    with pytest.raises(TastemakerError, match="name"):
        parse(PreferenceRun, {"name": name}, "here")


@pytest.mark.parametrize("name", ["pick score", "caf\u00e9", "v1.5", "-x", "<b>", "x" * 100])
def test_other_text_is_one(name: str) -> None:
    assert parse(ExportConfig, {"name": name}, "here").name == name


@pytest.mark.parametrize("label", [*sorted(TAKEN), "Prompt", "SEED"])
def test_no_scorer_is_called_as_a_column_of_the_pool(label: str) -> None:
    with pytest.raises(ValidationError, match="has a column"):
        TypeAdapter(Scorers).validate_python([{"name": "nano_judge", "label": label}])


def test_columns_of_pools_are_taken() -> None:
    about = {"candidate_id": "a", "latents": b"", "latents_shape": [1]}
    sizes = {"original_size": [1, 1], "crops_coords_top_left": [0, 0]}
    pool = {*candidate_table([about | sizes]).column_names, CONTENT}
    assert pool | {"guidance_scale"} == TAKEN  # of `scores.parquet`


def test_labels_that_some_disks_take_for_one_are_refused() -> None:
    scorers = [{"name": "nano_judge", "label": label} for label in ("Judge", "judge")]
    with pytest.raises(ValidationError, match="'Judge' is named twice"):
        TypeAdapter(Scorers).validate_python(scorers)


def test_a_value_is_shown_in_one_short_line() -> None:
    assert all(len(shown(value)) < 100 for value in HOSTILE)
    assert shown(10**5000) == "a number of very many digits"
