"""`report.json` of another shape is one clear error, whoever reads it."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from tastemaker.core.errors import TastemakerError
from tastemaker.storage.results import _Report, read_report

BASE = {"mean": 0.5, "stderr": None}
COMPARED = {"difference": 0.1, "difference_stderr": None, "win_rate": 0.75}
ENDS = {"win_rate_low": 0.5, "win_rate_high": 1.0}
WHOLE: dict[str, Any] = {
    "schema": 1,
    "base": "base",
    "prompts": 2,
    "images": 4,
    "models": {
        "base": {"scores": {"sharpness": BASE}},
        "policy": {"scores": {"sharpness": {**BASE, **COMPARED, **ENDS}}},
    },
}
SCORE = ("models", "policy", "scores", "sharpness")
PATHS = [
    ("base",),
    ("prompts",),
    ("models",),
    ("models", "base"),
    SCORE[:2],
    SCORE[:3],
    SCORE,
    *((*SCORE, name) for name in ("mean", "stderr", "difference", "win_rate", "win_rate_low")),
]


def fields(kind: Any) -> set[str]:
    """Names of a schema's fields, at every depth."""
    if inner := [fields(each) for each in get_args(kind)]:
        return set().union(*inner)
    if not (isinstance(kind, type) and issubclass(kind, BaseModel)):
        return set()
    found = kind.model_fields.items()
    names = {field.alias or name for name, field in found}
    return names.union(*(fields(field.annotation) for _, field in found))


def test_every_field_is_explained() -> None:
    page = Path(__file__).parents[2] / "docs" / "files.md"
    _, section = page.read_text(encoding="utf-8").split("## report.json")
    assert len(fields(_Report)) > 20
    assert fields(_Report) - {"models", "scores", "low", "high"} <= set(
        re.findall(r"\w+", " ".join(re.findall(r"`([^`]+)`", section)))
    )


def test_a_whole_one_is_read_as_it_stands(tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text(json.dumps(WHOLE))
    assert read_report(tmp_path / "report.json") == WHOLE


@pytest.mark.parametrize("value", ["x", [1], float("nan"), True], ids=str)
@pytest.mark.parametrize("path", PATHS, ids=".".join)
def test_any_field_of_another_kind_is_named(
    path: tuple[str, ...], value: object, tmp_path: Path
) -> None:
    held = copy.deepcopy(WHOLE)
    inner = held
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    (tmp_path / "report.json").write_text(json.dumps(held))
    with pytest.raises(TastemakerError, match=r"report\.json is damaged"):
        read_report(tmp_path / "report.json")


@pytest.mark.parametrize("path", [("base",), ("prompts",), SCORE[:3], (*SCORE, "win_rate_low")])
def test_a_field_that_is_missing_is_noticed(path: tuple[str, ...], tmp_path: Path) -> None:
    held = copy.deepcopy(WHOLE)
    inner = held
    for key in path[:-1]:
        inner = inner[key]
    del inner[path[-1]]
    (tmp_path / "report.json").write_text(json.dumps(held))
    with pytest.raises(TastemakerError, match=r"report\.json is damaged"):
        read_report(tmp_path / "report.json")


@pytest.mark.parametrize("text", ["[1]", "null", "{}", "5", '{"models": {}}', '{"a'])
def test_another_file_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text(text)
    with pytest.raises(TastemakerError, match=r"report\.json"):
        read_report(tmp_path / "report.json")
