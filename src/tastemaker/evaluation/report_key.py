"""Key of a `report.json`: a hash of all that its numbers depend on, known without torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tastemaker.config.choices import Choice
from tastemaker.config.evaluation import EvaluateConfig
from tastemaker.core.content_hash import folder_content
from tastemaker.core.errors import TastemakerError
from tastemaker.core.plugins import plugin_code
from tastemaker.metrics.networks import classifier_identity, features_identity
from tastemaker.scorers.inputs import column_artifact
from tastemaker.storage.artifact import Artifact, finished_key
from tastemaker.storage.files import config_key
from tastemaker.storage.kept import SCORES
from tastemaker.storage.results import read_report

CODE = Path(__file__).parents[1]
SCORES_DTYPE = "fp32"


def report_key(config: EvaluateConfig, pools: Mapping[str, Artifact], **stated: Any) -> str:
    """Hash what a report depends on: pools, scores, real images, metrics and their code.

    Args:
        config: Metrics, features, scorers and the pool of real images.
        pools: Model name to finished and scored pool.
        **stated: What the report states beside its measurements, JSON-like.

    Returns:
        16 hex digits.

    Raises:
        TastemakerError: A pool or column is not finished, or a file of a network is missing.
    """
    columns = [scorer.column for scorer in config.scorers]
    scores = [
        {column: finished_key(pool.folder / "scores" / column) for column in columns}
        for pool in pools.values()
    ]
    real = config.real and finished_key(Path(config.real).expanduser())
    return config_key(
        "report",
        stated,
        {name: pool.key for name, pool in pools.items()},
        scores,
        real,
        [features_identity(name) for name in config.features],
        [_metric(metric) for metric in config.metrics],
        config.seed,
        [_code(CODE / name) for name in ("evaluation", "metrics")],
    )


def up_to_date(
    report: Path, config: EvaluateConfig, pools: Mapping[str, Artifact], **stated: Any
) -> bool:
    """Return whether a report is what an evaluation would write again.

    Args:
        report: The `report.json`.
        config: As of `report_key`.
        pools: As of `report_key`; they may be unfinished.
        **stated: As of `report_key`.
    """
    try:
        held = read_report(report).get("key")
        made = report.with_name(SCORES).is_file() and all(
            pool.finished
            and all(
                column_artifact(pool.folder, scorer, SCORES_DTYPE).finished
                for scorer in config.scorers
            )
            for pool in pools.values()
        )
        return made and held == report_key(config, pools, **stated)
    except TastemakerError:  # what is missing is made, or named, by the evaluation
        return False


def _metric(metric: Choice) -> list[Any]:
    """Options of a metric, with the content of its classifier and the code of a plugin."""
    classifier = metric.options.get("classifier")
    network = classifier and classifier_identity(classifier)
    return [metric.model_dump(mode="json"), network, plugin_code({metric.name})]


def _code(folder: Path) -> str:
    return folder_content(folder, (file.name for file in folder.glob("*.py")))
