"""Schema of `report.json`, checked whenever it is read; docs/files.md explains each field."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from tastemaker.storage.files import damaged, read_json


class _Held(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False)


class _Score(_Held):
    """One model under one scorer; the base has no more than mean and error."""

    mean: float
    stderr: float | None
    mean_low: float | None = None
    mean_high: float | None = None
    difference: float | None = None
    difference_stderr: float | None = None
    difference_low: float | None = None
    difference_high: float | None = None
    win_rate: float | None = None
    win_rate_low: float | None = None
    win_rate_high: float | None = None
    beat_ratio: float | None = None

    @model_validator(mode="after")
    def _whole(self) -> _Score:
        compared = (self.difference, self.win_rate, self.win_rate_low, self.win_rate_high)
        own = {"mean", "stderr", "mean_low", "mean_high"}
        if any(each is None for each in compared) and self.model_fields_set - own:
            raise ValueError("the comparison with the base is not whole")
        return self


class _Rate(_Held):
    value: float
    low: float
    high: float


class _Measure(_Held):
    name: str
    value: float
    stderr: float | None
    images: int


class _Distance(_Measure):
    dimension: int
    captions: str | None = None
    real_to_real: float | None = None


class _Diversity(_Measure):
    relative_difference: float | None = None
    relative_low: float | None = None
    relative_high: float | None = None


class _Point(_Held):
    """One model at one scale of the guidance search."""

    guidance_scale: float
    mean: float
    stderr: float | None
    diversity: dict[str, _Measure] = {}


class _Search(_Held):
    scorer: str
    prompts: int


class _Model(_Held):
    scores: dict[str, _Score]
    frechet: dict[str, _Distance] = {}
    kernel: dict[str, _Distance] = {}
    inception_score: dict[str, _Measure] = {}
    diversity: dict[str, _Diversity] = {}
    hue_distance: float | None = None
    drawn_with: str = ""
    guidance_scale: float | None = None
    guidance_search: list[_Point] = []


class _Report(_Held):
    schema_: int = Field(1, alias="schema")
    key: str = ""
    base: str
    prompts: int
    images: int | None = None
    prompts_trained_on: int | None = None
    judge: str | None = None
    guidance_search: _Search | None = None
    metrics: list[str] = []
    shares: list[str] = []
    models: dict[str, _Model]
    win_rates: dict[str, dict[str, dict[str, _Rate]]] = {}

    @model_validator(mode="after")
    def _compared(self) -> _Report:
        if self.base not in self.models:
            raise ValueError(f"no model {self.base!r}")
        return self


def read_report(path: Path) -> dict[str, Any]:
    """Read a `report.json`.

    Args:
        path: The file.

    Returns:
        Its content, unchanged.

    Raises:
        TastemakerError: It is missing, torn or of another shape, or a number in it is not finite.
    """
    held: dict[str, Any] = read_json(path)
    try:
        _Report.model_validate(held)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise damaged(path, f"{where}: {first['msg']}" if where else first["msg"]) from None
    return held
