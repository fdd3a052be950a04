"""Open a run's folder and hand it to its recipe."""

from __future__ import annotations

from pathlib import Path

from tastemaker import backbones
from tastemaker.config import loading as configuration
from tastemaker.config.datasets import ImagesConfig, ImportConfig
from tastemaker.config.runs import RunConfig
from tastemaker.config.sections import ReportConfig, sections_of
from tastemaker.config.training import OptimisationConfig
from tastemaker.core.errors import TastemakerError
from tastemaker.core.hardware import agree, environment, from_main_process
from tastemaker.core.registry import RECIPES
from tastemaker.preflight import check, check_loading
from tastemaker.recipes.warnings import imported_sizes, model_warnings, prompts_warning
from tastemaker.reporting.report import report, up_to_date
from tastemaker.storage.run_dir import RunDir
from tastemaker.training.checks import check_training
from tastemaker.training.warnings import warn


def run(config: RunConfig) -> RunDir:
    """Run a recipe from start to report, or go on where it was interrupted.

    In the folder of a run with other options, what depends on them is made again, and what was
    there is kept in `.artifacts`.

    Args:
        config: The run, from `tastemaker.config.loading.load`.

    Returns:
        The run's folder.

    Raises:
        TastemakerError: The folder is of another recipe, or a step failed.

    Example:
        >>> from tastemaker.config.loading import load
        >>> folder = run(load("demo", ("train.max_steps=20",)))  # doctest: +SKIP
    """
    folder, text = RunDir(Path(config.output) / config.name), configuration.dump(config)
    agree(text)
    if folder.finished_with(text):
        check(config)
    else:
        check_run(config)
        for warning in model_warnings(config):
            warn(warning)
    warn(prompts_warning(config))
    with folder.claimed(text, environment):
        RECIPES.entry(config.recipe)(config, folder)
        if not from_main_process(lambda: up_to_date(folder)):
            report(config.report, folder)
    return folder


def check_run(config: RunConfig) -> None:
    """Check all sections of a run: what is wrong with the last shows before the first begins.

    Args:
        config: The run.

    Raises:
        TastemakerError: Something is missing or does not fit, with the path of its option.
    """
    check(config)
    check_loading(config)
    for path, section in sections_of(config):
        try:
            if isinstance(section, OptimisationConfig):
                check_training(section)
            elif isinstance(section, ImportConfig | ImagesConfig) and path != "held_out":
                backbones.check_model(config.model, imported_sizes(section))
        except TastemakerError as error:
            raise TastemakerError(f"{path}: {error}") from None


def report_again(run: RunDir) -> Path:
    """Make the page of a finished run again, with the run's own report options.

    Args:
        run: The run's folder.

    Returns:
        Path of the page.

    Raises:
        TastemakerError: The folder is not a run's, or the run is not finished.
    """
    section = configuration.read_yaml(run.config).get("report", {})
    return report(configuration.parse(ReportConfig, section, str(run.config)), run)
