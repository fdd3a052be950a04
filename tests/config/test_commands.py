"""Commands take a section, or its options by name."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_type_hints

import pytest

import tastemaker as tm
from folders import digests
from tastemaker.config.sections import Section
from trainings import train_config

COMMANDS: list[Callable[..., Any]] = [
    value for name in tm.__all__ if hasattr(value := getattr(tm, name), "__wrapped__")
]


def test_options_by_name_are_the_section(pairs: Path, tiny_model: Path, tmp_path: Path) -> None:
    config = train_config(tiny_model, max_steps=1)
    options = {name: getattr(config, name) for name in config.model_fields_set}
    first = tm.train(pairs=str(pairs), output=str(tmp_path / "first"), **options)
    longer = train_config(tiny_model, max_steps=3)
    second = tm.train(longer, pairs, tmp_path / "second", max_steps=1)
    assert digests(first) == digests(second)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.__name__)
def test_no_option_has_the_name_of_a_folder(command: Callable[..., Any]) -> None:
    places = set(inspect.signature(command).parameters) - {"config"}
    section: type[Section] = get_type_hints(inspect.unwrap(command))["config"]
    assert places
    assert not places & section.model_fields.keys()


def test_wrong_calls_are_answered(tmp_path: Path) -> None:
    assert len(COMMANDS) > 10
    with pytest.raises(tm.TastemakerError, match="train: 'pairs' is not a TrainConfig; give one"):
        tm.train("pairs", tmp_path)
    with pytest.raises(tm.TastemakerError, match="TrainConfig: .*max_stepz.*max_steps"):
        tm.train(pairs=tmp_path, output=tmp_path, model="nano", max_stepz=3)
