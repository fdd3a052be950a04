"""A finished run, read into memory without its images."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tastemaker.config.loading import load
from tastemaker.config.runs import RunConfig
from tastemaker.config.sections import sections_of
from tastemaker.config.training import RewardTrainConfig, TrainConfig
from tastemaker.core.errors import TastemakerError
from tastemaker.reporting.judges import judge_of, training_scorers
from tastemaker.storage.files import read_json, read_json_lines
from tastemaker.storage.pool import Pool
from tastemaker.storage.results import read_report
from tastemaker.storage.run_dir import RunDir

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Contents:
    """A finished run without its images.

    Args:
        run: Its folder.
        config: The resolved configuration; None where the run has none.
        environment: Versions and machine; empty where the run has none.
        report: `report.json`.
        metrics: One row per optimizer step, in order of steps.
        scores: For each model, the scored row of each (prompt_id, seed), in pool order.
    """

    run: RunDir
    config: RunConfig | None
    environment: dict[str, Any]
    report: dict[str, Any]
    metrics: list[dict[str, float]]
    scores: dict[str, dict[tuple[str, int], Row]]

    @property
    def name(self) -> str:
        """The run's name."""
        return self.config.name if self.config is not None else self.run.folder.name

    @property
    def base(self) -> str:
        """The model that the others are compared with."""
        return str(self.report.get("base", "base"))

    @property
    def challengers(self) -> list[str]:
        """Every model but the base, in the order of the report, then those drawn alone."""
        found = dict.fromkeys([*self.report["models"], *self.scores])
        held = {*self.report["models"], *self.scores}
        return [name for name in found if name != self.base and name in held]

    @property
    def subject(self) -> str | None:
        """The run's main model: the policy, or else the first that was judged."""
        return "policy" if "policy" in self.challengers else next(iter(self.challengers), None)

    @property
    def scorers(self) -> list[str]:
        """Every scorer that measured a model: those of the configuration first, in its order."""
        measured: dict[str, None] = {}
        for model in self.report["models"].values():
            measured.update(dict.fromkeys(model.get("scores", {})))
        given = [each.column for each in self.config.evaluate.scorers] if self.config else []
        named = [name for name in given if name in measured]
        return [*named, *(name for name in measured if name not in named)]

    @property
    def judge(self) -> str | None:
        """The independent judge; without a configuration, the last scorer."""
        if self.config is not None:
            return judge_of(self.config)
        return next(reversed(self.scorers), None)

    @property
    def ranking_scorer(self) -> str | None:
        """The scorer that images are sorted by: the judge, or the last scorer without one."""
        return self.judge or next(reversed(self.scorers), None)

    @property
    def training_scorers(self) -> list[str]:
        """The scorers that training learned from."""
        return training_scorers(self.config) if self.config is not None else []

    @property
    def training(self) -> TrainConfig | RewardTrainConfig | None:
        """Options of the first training of the run."""
        found = sections_of(self.config) if self.config is not None else ()
        trainings = (each for _, each in found if isinstance(each, TrainConfig | RewardTrainConfig))
        return next(trainings, None)

    def shared_rows(self, model: str) -> list[tuple[Row, Row]]:
        """Return the scored rows of base and model drawn with the same prompt and seed."""
        theirs = self.scores.get(model, {})
        ours = self.scores.get(self.base, {})
        return [(row, theirs[key]) for key, row in ours.items() if key in theirs]


def read(run: RunDir) -> Contents:
    """Read a finished run.

    Args:
        run: The run.

    Returns:
        Its configuration, measurements and scores.

    Raises:
        TastemakerError: The run has no `report.json`, one of its files is torn, or its
            configuration is not one of this version.
    """
    if not run.report_json.is_file():
        raise TastemakerError(
            f"{run.report_json} does not exist: the run is not evaluated yet."
            " Run `tastemaker run` on its configuration again (finished steps are skipped),"
            " then ask for the report."
        )
    held = read_report(run.report_json)
    environment = read_json(run.environment) if run.environment.is_file() else {}
    return Contents(
        run=run,
        config=load(str(run.config)) if run.config.is_file() else None,
        environment=environment if isinstance(environment, dict) else {},
        report=held,
        metrics=_trainings(run, held["models"]),
        scores={
            pool.folder.name: _scored_rows(pool)
            for pool in map(Pool, sorted(run.evaluation.glob("*")))
            if any(pool.folder.glob("candidates-*.parquet"))
        },
    )


def _metrics(path: Path) -> list[dict[str, float]]:
    """Read the training metrics; of a step written twice (after a resume) the last row counts."""
    rows = {
        float(row["step"]): {name: _number(value) for name, value in row.items()}
        for row in read_json_lines(path, step=int)
        if "step" in row
    }
    return [rows[step] for step in sorted(rows)]


def _trainings(run: RunDir, models: Iterable[str]) -> list[dict[str, float]]:
    """Read the metrics of a curriculum's stages or rounds in a row, steps counted on."""
    rows: list[dict[str, float]] = []
    for name in models:
        done = rows[-1]["step"] if rows else 0.0
        held = _metrics(run.model(name) / "metrics.jsonl")
        rows += [{**row, "step": row["step"] + done} for row in held]
    return rows


def _number(value: Any) -> float:
    """Read null, text and "nan" as NaN, so that one odd value does not cost the page."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan


def _scored_rows(pool: Pool) -> dict[tuple[str, int], Row]:
    rows: list[dict[str, Any]] = pool.scores().to_pylist()
    return {(str(row["prompt_id"]), int(row["seed"])): row for row in rows}
