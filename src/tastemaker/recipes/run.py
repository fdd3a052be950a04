"""Open a run's folder and hand it to its recipe."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tqdm import tqdm

from tastemaker import backbones
from tastemaker.config import loading as configuration
from tastemaker.config.choices import Choice
from tastemaker.config.datasets import ImagesConfig, ImportConfig
from tastemaker.config.runs import RunConfig
from tastemaker.config.sections import ReportConfig, Section, sections_of
from tastemaker.config.training import OptimisationConfig
from tastemaker.core.errors import TastemakerError
from tastemaker.core.hardware import agree, environment, from_main_process
from tastemaker.core.registry import RECIPES
from tastemaker.datasets.prompts.sources import load_prompts
from tastemaker.preflight import check, check_loading
from tastemaker.reporting.report import report, up_to_date
from tastemaker.storage.run_dir import RunDir
from tastemaker.storage.trained_prompts import shared_prompts, shared_warning
from tastemaker.training.checks import check_training


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
    judged, trained = read_prompts(config)
    if warning := shared_warning(len(shared_prompts(judged, trained)), len(judged)):
        tqdm.write(f"warning: {warning}")
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
                backbones.check_model(config.model, _sizes(section))
        except TastemakerError as error:
            raise TastemakerError(f"{path}: {error}") from None


def _sizes(section: ImportConfig | ImagesConfig) -> list[tuple[int, int]]:
    """Heights and widths that an import scales to; none where images keep their own."""
    if section.resolution is not None:
        return [(section.resolution, section.resolution)]
    return [(height, width) for width, height in section.buckets]


def read_prompts(config: RunConfig) -> tuple[list[str], list[str]]:
    """Load the prompt sets of a run.

    Args:
        config: The run.

    Returns:
        The prompts of the evaluation, and those of all other sections; captions of images that the
        run imports are not known yet.
    """
    others = config.model_copy(update={"evaluate": None})
    return load_prompts(config.evaluate.prompts), list(_prompts(others))


def _prompts(section: Section) -> Iterator[str]:
    for name in type(section).model_fields:
        value = getattr(section, name)
        if name == "prompts" and isinstance(value, Choice):
            yield from load_prompts(value)
        elif isinstance(value, Section):
            yield from _prompts(value)


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
