"""Every shipped run loads, says what it is, and the README's Python does what the recipe does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tastemaker.config.loading import dump, load, shipped_runs
from tastemaker.core.registry import RECIPES
from tastemaker.recipes.run import run
from tastemaker.storage.files import read_json

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", shipped_runs())
def test_shipped_run_loads_and_says_what_it_is(name: str) -> None:
    config = load(name)
    assert config.name == name
    assert config.recipe in RECIPES
    header = shipped_runs()[name].read_text(encoding="utf-8").split("\nrecipe:")[0]
    for part in ("command:", "hardware:", "measured:"):
        assert part in header, f"{name}.yaml has no {part} line in its header"
    assert f"tastemaker run {name}" in header


@pytest.mark.parametrize("name", shipped_runs())
def test_shipped_run_survives_its_own_resolved_form(name: str, tmp_path: Path) -> None:
    config = load(name)
    (tmp_path / "config.yaml").write_text(dump(config), encoding="utf-8")
    assert load(str(tmp_path / "config.yaml")) == config


def test_readme_python_is_the_recipe(
    run_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert code.count('load("demo")') == 1
    monkeypatch.chdir(tmp_path)
    exec(code.replace('load("demo")', f"load({str(run_file)!r})"), {})
    by_hand = read_json(tmp_path / "runs" / "python" / "report.json")
    by_recipe = read_json(run(load(str(run_file), ("output=elsewhere",))).report_json)
    # Keys of all that it was made from enter the key of a report.
    assert {**by_hand, "key": ""} == {**by_recipe, "key": ""}


def test_readme_names_every_recipe() -> None:
    text = (ROOT / "README.md").read_text()
    for name in RECIPES.names():
        assert f"docs/{name}.md" in text
        assert (ROOT / "docs" / f"{name}.md").is_file()
