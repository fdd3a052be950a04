"""What a finished run holds, read into memory: everything but the images."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tastemaker.config.loading import read_yaml
from tastemaker.core.errors import TastemakerError
from tastemaker.storage.files import read_json, read_json_lines
from tastemaker.storage.pool import Pool
from tastemaker.storage.results import read_report
from tastemaker.storage.run_dir import RunDir

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Contents:
    """A finished run without its images.

    Args:
        run: Where it lies.
        config: The resolved configuration as plain values; empty where the run has none.
        environment: Versions and machine; empty where the run has none.
        report: `report.json`.
        metrics: One row an optimizer step, in order of steps.
        scores: For each model, the scored row of each (prompt_id, seed), in pool order.
    """

    run: RunDir
    config: dict[str, Any]
    environment: dict[str, Any]
    report: dict[str, Any]
    metrics: list[dict[str, float]]
    scores: dict[str, dict[tuple[str, int], Row]]

    @property
    def name(self) -> str:
        """The run's name."""
        return str(self.config.get("name") or self.run.folder.name)

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
        """The model that the run is about: the policy, or else the first that was judged."""
        return "policy" if "policy" in self.challengers else next(iter(self.challengers), None)

    @property
    def scorers(self) -> list[str]:
        """Every scorer that measured a model: those of the configuration first, in its order."""
        measured: dict[str, None] = {}
        for model in self.report["models"].values():
            measured.update(dict.fromkeys(model.get("scores", {})))
        named = [name for name in columns(self.setting("evaluate", "scorers")) if name in measured]
        return [*named, *(name for name in measured if name not in named)]

    @property
    def judge(self) -> str | None:
        """The scorer that speaks last: the last one that the configuration names."""
        named = [
            name for name in columns(self.setting("evaluate", "scorers")) if name in self.scorers
        ]
        return next(reversed(named or self.scorers), None)

    @property
    def training_scorers(self) -> list[str]:
        """The scorers that decided what training took for better; see `training_scorers`."""
        return training_scorers(self.config)

    def setting(self, *path: str) -> Any:
        """Look up a value of the configuration, or None where it has none."""
        value: Any = self.config
        for part in path:
            value = value.get(part) if isinstance(value, Mapping) else None
        return value

    def shared_rows(self, model: str) -> list[tuple[Row, Row]]:
        """Return the scored rows of base and model drawn with the same prompt and seed."""
        theirs = self.scores.get(model, {})
        ours = self.scores.get(self.base, {})
        return [(row, theirs[key]) for key, row in ours.items() if key in theirs]


def training_scorers(config: Mapping[str, Any]) -> list[str]:
    """Name the scorers that decided which image was chosen, or whose gradient was followed.

    Args:
        config: A run's resolved configuration as plain values.

    Returns:
        Columns of scores, with the members of ensembles, and the judges of the evaluation that are
        the same scorers under another label or ensembles of them.
    """
    train, pair, score, judging = (
        config.get(name) or {} for name in ("train", "pair", "score", "evaluate")
    )
    taken = {column: entry for entry, column in _entries(score.get("scorers"))}
    if train.get("scorer") is not None:
        taken = {column: entry for entry, column in _entries([train["scorer"]])}
        learnt = dict.fromkeys(taken)
    elif isinstance(config.get("scorer"), str):
        learnt = {config["scorer"]: None}
    else:
        learnt = dict.fromkeys(_deciding(pair.get("rule")) or taken)
    for name in list(learnt):
        learnt |= dict.fromkeys(_members(taken.get(name), taken))
    known = [_identity(taken[name]) for name in learnt if name in taken]
    judges = _entries(judging.get("scorers"))
    entries = {column: entry for entry, column in judges}
    for entry, column in judges:
        if _identity(entry) in known or set(_members(entry, entries)) & set(learnt):
            learnt[column] = None
    return list(learnt)


def _entries(scorers: Any) -> list[tuple[Any, str]]:
    return list(zip(scorers, columns(scorers), strict=True)) if isinstance(scorers, list) else []


def _deciding(rule: Any) -> list[str]:
    """The columns that a pair rule looks at."""
    if not isinstance(rule, Mapping):
        return []
    named = [rule[key] for key in ("scorer", "weights", "fidelity", "prompt") if key in rule]
    return [name for each in named for name in ([each] if isinstance(each, str) else each)]


def _members(entry: Any, entries: Mapping[str, Any]) -> list[str]:
    """The columns of an ensemble and of the ensembles among them; a scorer has none."""
    of = list(entry.get("of") or ()) if isinstance(entry, Mapping) else []
    return [*of, *(inner for name in of for inner in _members(entries.get(name), entries))]


def _identity(entry: Any) -> dict[str, Any]:
    """What a scorer computes: its name and options without the label."""
    given = entry if isinstance(entry, Mapping) else {"name": entry}
    return {key: value for key, value in given.items() if key != "label" and value is not None}


def columns(scorers: Any) -> list[str]:
    """Return the columns of a `scorers:` list as the configuration holds it."""
    if not isinstance(scorers, list):
        return []
    return [
        str(entry.get("label") or entry.get("name")) if isinstance(entry, Mapping) else str(entry)
        for entry in scorers
    ]


def read(run: RunDir) -> Contents:
    """Read a finished run.

    Args:
        run: The run.

    Returns:
        All that the page tells, images excepted.

    Raises:
        TastemakerError: The run has no `report.json`, or one of its files is torn.
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
        config=read_yaml(run.config) if run.config.is_file() else {},
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
