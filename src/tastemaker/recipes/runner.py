"""Open a run's folder and hand it to its recipe."""

from __future__ import annotations

from pathlib import Path

from tastemaker import config as configuration
from tastemaker.choices import Choice
from tastemaker.hardware import agree, environment
from tastemaker.prompts import load_prompts
from tastemaker.records import RunDir
from tastemaker.registry import RECIPES
from tastemaker.report import report
from tastemaker.runs import RunConfig
from tastemaker.sections import ReportConfig, Section


def run(config: RunConfig) -> RunDir:
    """Run a recipe from start to report, or go on where it was interrupted.

    Args:
        config: The run, from `tastemaker.config.load`.

    Returns:
        The run's folder.

    Raises:
        TastemakerError: The folder belongs to another configuration, or a room failed.

    Example:
        >>> from tastemaker.config import load
        >>> folder = run(load("demo", ("train.steps=20",)))  # doctest: +SKIP
    """
    folder = RunDir(Path(config.output) / config.name)
    agree(configuration.dump(config))
    read_prompts(config)
    with folder.claimed(configuration.dump(config), environment):
        RECIPES.entry(config.recipe)(config, folder)
    return folder


def read_prompts(section: Section) -> None:
    """Load all prompt sets of a run: what is wrong with the last room's shows before the first.

    Args:
        section: The run, or a section of it.

    Raises:
        TastemakerError: A set is missing, empty, or not what its room takes.
    """
    for name in type(section).model_fields:
        value = getattr(section, name)
        if name == "prompts" and isinstance(value, Choice):
            load_prompts(value)
        elif isinstance(value, Section):
            read_prompts(value)


def report_again(run: RunDir) -> Path:
    """Make the page of a finished run again, with the run's own report options.

    Args:
        run: The run's folder.

    Returns:
        Path of the page.

    Raises:
        TastemakerError: The folder holds no run, or the run is not finished.
    """
    section = configuration.read_yaml(run.config).get("report", {})
    return report(configuration.parse(ReportConfig, section, str(run.config)), run)
