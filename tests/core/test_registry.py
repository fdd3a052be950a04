"""Tables of named things: what a user misspells is named, and what a plug-in adds is there."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import pytest
from pydantic import BaseModel, Field, create_model

from tastemaker.core import registry
from tastemaker.core.errors import TastemakerError
from tastemaker.core.plugins import load_plugins
from tastemaker.core.registry import LOSSES, RULES, SCORERS, Table

if TYPE_CHECKING:
    from nowhere import OnlyForTypes  # type: ignore[import-not-found]

TABLES = {name: held for name, held in vars(registry).items() if isinstance(held, Table)}


@pytest.fixture
def cakes() -> Table:
    table = Table("cake")

    @table.register("sponge")
    def sponge(
        eggs: int,
        *,
        sugar: Annotated[float, Field(gt=0)],
        layers: Annotated[int, Field(ge=1)] = 2,
        filling: str = "jam",
    ) -> tuple[int, float, int, str]:
        return eggs, sugar, layers, filling

    @table.register("pound")
    class Pound:
        def __init__(self, *, sugar: float = 0.25) -> None:
            self.sugar = sugar

    return table


def test_names_are_sorted_and_looked_up(cakes: Table) -> None:
    assert cakes.names() == ["pound", "sponge"]
    assert "sponge" in cakes
    assert "bundt" not in cakes


def test_an_unknown_name_suggests_the_nearest_and_lists_all(cakes: Table) -> None:
    with pytest.raises(
        TastemakerError,
        match=r"unknown cake 'spnoge'\. Did you mean sponge\? Known: pound, sponge\.",
    ):
        cakes.entry("spnoge")


def test_a_name_like_no_other_suggests_nothing(cakes: Table) -> None:
    with pytest.raises(TastemakerError, match=r"unknown cake 'xyz'\. Known: pound, sponge\."):
        cakes.bind("xyz", {})


def test_options_become_typed_and_defaults_are_filled(cakes: Table) -> None:
    options = cakes.validate("sponge", {"sugar": "2e-1", "layers": "3"})
    assert options == {"sugar": 0.2, "layers": 3, "filling": "jam"}
    assert isinstance(options["sugar"], float)


def test_a_bound_entry_waits_for_its_data(cakes: Table) -> None:
    assert cakes.bind("sponge", {"sugar": 0.5})(4) == (4, 0.5, 2, "jam")
    assert cakes.bind("pound", {})().sugar == 0.25


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sugar": 1, "layer": 3}, r"unknown option 'layer'\. Did you mean layers\?"),
        ({"sugar": 1, "eggs": 3}, "unknown option 'eggs'"),
        ({}, "option 'sugar' is required"),
        ({"sugar": 0}, "option 'sugar' = 0: .*greater than 0"),
        ({"sugar": 1, "layers": 1.5}, r"option 'layers' = 1\.5: .*integer"),
        ({"sugar": "much"}, "option 'sugar' = 'much': .*number"),
    ],
)
def test_wrong_options_are_named(cakes: Table, options: dict[str, Any], message: str) -> None:
    with pytest.raises(TastemakerError, match=f"cake 'sponge': {message}"):
        cakes.validate("sponge", options)


def test_every_mistake_is_named_at_once(cakes: Table) -> None:
    with pytest.raises(TastemakerError, match="'layers'") as caught:
        cakes.validate("sponge", {"sugar": -1, "layers": 0})
    assert "'sugar'" in str(caught.value)


def test_a_taken_name_is_refused(cakes: Table) -> None:
    def other() -> None: ...

    with pytest.raises(TastemakerError, match="cake 'sponge' is registered twice"):
        cakes.register("sponge")(other)


def test_only_the_options_annotations_need_to_exist() -> None:
    table = Table("cake")

    @table.register("marble")
    def marble(dough: "OnlyForTypes", *, sugar: "float" = 1.0) -> "OnlyForTypes": ...

    assert table.validate("marble", {"sugar": "2"}) == {"sugar": 2.0}


class TestBuiltins:
    """Laws that every entry of every table keeps: its signature is its schema, help and docs."""

    @pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
    def test_every_table_has_entries(self, table: Table) -> None:
        assert table.names()

    @pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
    def test_every_entry_describes_itself_and_its_options(self, table: Table) -> None:
        for name in table.names():
            assert (table.entry(name).__doc__ or "").strip(), f"{table.kind} {name}: no docstring"
            schema = table.schema(name)
            assert issubclass(schema, BaseModel)
            for option, field in schema.model_fields.items():
                assert field.description, f"{table.kind} {name}: option {option} has no description"

    @pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
    def test_every_default_is_a_valid_value(self, table: Table) -> None:
        for name in table.names():
            for option, field in table.schema(name).model_fields.items():
                if field.is_required():
                    continue
                default = field.get_default(call_default_factory=True)
                alone = create_model("Alone", value=(field.annotation, field))
                assert alone(value=default).value == default, f"{table.kind} {name}: {option}"


class TestPlugins:
    def test_an_entry_of_a_plugin_can_be_used(self, tmp_path: Path) -> None:
        file = tmp_path / "first_last.py"
        file.write_text(
            '''
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from tastemaker.storage.groups import Group
from tastemaker.pairing.picks import Pick
from tastemaker.core.registry import RULES


@dataclass
class Margin:
    value: float


@RULES.register("first_last")
def first_last(
    group: Group, *, margin: Annotated[float, Field(ge=0, description="Margin of all.")] = 1.0
) -> Iterator[Pick]:
    """The first candidate against the last, whatever they score."""
    yield Pick(0, len(group.candidate_ids) - 1, Margin(margin).value)
'''
        )
        load_plugins((str(file),))
        from tastemaker.pairing.picks import Pick
        from tastemaker.storage.groups import Group

        rule = RULES.bind("first_last", {"margin": 2})
        assert list(rule(Group("p", "a dog", ["a", "b", "c"]))) == [Pick(0, 2, 2.0)]
        load_plugins((str(file),))  # a second run in one process loads it again

    def test_a_plugin_cannot_replace_a_builtin_silently(self, tmp_path: Path) -> None:
        builtin = LOSSES.entry("dpo")
        file = tmp_path / "shadow.py"
        file.write_text(
            "from tastemaker.core.registry import LOSSES\n"
            "@LOSSES.register('dpo')\n"
            "def dpo(margin):\n"
            "    return 0 * margin\n"
        )
        with pytest.raises(TastemakerError, match="loss 'dpo' is registered twice"):
            load_plugins((str(file),))
        assert LOSSES.entry("dpo") is builtin

    def test_a_missing_file_is_named(self, tmp_path: Path) -> None:
        file = str(tmp_path / "rules.py")
        with pytest.raises(TastemakerError, match=r"plugin '.*rules\.py': .* does not exist"):
            load_plugins((file,))

    @pytest.mark.parametrize(
        ("code", "message"),
        [
            ("import a_module_that_is_not_there", "a_module_that_is_not_there"),
            ("def rule(:\n", "invalid syntax"),
            ("raise KeyError('beta')", "beta"),
        ],
    )
    def test_a_plugin_that_fails_is_named_with_the_reason(
        self, tmp_path: Path, code: str, message: str
    ) -> None:
        file = tmp_path / "broken.py"
        file.write_text(code)
        with pytest.raises(TastemakerError, match=rf"broken\.py'.* failed to import: .*{message}"):
            load_plugins((str(file),))

    def test_a_file_that_is_no_python_is_refused(self, tmp_path: Path) -> None:
        file = tmp_path / "rules.yaml"
        file.write_text("a: 1")
        with pytest.raises(TastemakerError, match="is not a Python file"):
            load_plugins((str(file),))

    def test_the_examples_of_the_contributors_guide_work(self, tmp_path: Path) -> None:
        guide = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text(encoding="utf-8")
        files = []
        for number, code in enumerate(re.findall(r"```python\n(.*?)```", guide, re.DOTALL)):
            files.append(tmp_path / f"example_{number}.py")
            files[-1].write_text(code, encoding="utf-8")
        load_plugins(tuple(map(str, files)))

        import torch
        from PIL import Image

        from tastemaker.pairing.picks import Pick
        from tastemaker.storage.groups import Group

        loss = LOSSES.bind("squared_hinge", {"beta": 2})
        assert loss(torch.tensor([-1.0, 0.25, 3.0])).tolist() == [9.0, 0.25, 0.0]
        rule = RULES.bind("best_second", {"scorer": "judge"})
        group = Group("p", "a dog", ["a", "b", "c"], {"judge": [0.5, 2.0, 1.0]})
        assert list(rule(group)) == [Pick(1, 2, 1.0)]
        pictures = [Image.new("RGB", (4, 4), colour) for colour in ("black", "white")]
        assert SCORERS.bind("brightness", {})()(pictures, ["", ""]).tolist() == [0.0, 1.0]
