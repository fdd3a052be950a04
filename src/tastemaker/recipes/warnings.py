"""Warnings of a whole run before it begins: shared prompts, distilled models, unlike sizes."""

from __future__ import annotations

from collections.abc import Iterator

from tastemaker import backbones
from tastemaker.config.choices import Choice
from tastemaker.config.datasets import ImagesConfig, ImportConfig
from tastemaker.config.evaluation import EvaluateConfig
from tastemaker.config.personalization import PersonalizeConfig
from tastemaker.config.runs import RunConfig
from tastemaker.config.sections import GenerateConfig, Section, sections_of
from tastemaker.config.training import OptimisationConfig
from tastemaker.datasets.prompts.sources import load_prompts
from tastemaker.storage.trained_prompts import shared_prompts, shared_warning
from tastemaker.training.warnings import Sides, size_warning


def prompts_warning(config: RunConfig) -> str | None:
    """Name the prompts of the evaluation that other sections of the run use.

    Captions of images that the run imports are not known yet.

    Args:
        config: The run.

    Returns:
        A sentence; None where all are new.
    """
    judged = load_prompts(config.evaluate.prompts)
    others = config.model_copy(update={"evaluate": None})
    shared = shared_prompts(judged, list(_prompts(others)))
    return shared_warning(len(shared), len(judged), shared)


def _prompts(section: Section) -> Iterator[str]:
    for _, inside in sections_of(section):
        prompts = getattr(inside, "prompts", None)
        if isinstance(prompts, Choice):
            yield from load_prompts(prompts)


def model_warnings(config: RunConfig) -> Iterator[str]:
    """Yield warnings of the run's models: distilled ones, and sizes unlike the evaluation's.

    Args:
        config: The run, checked.
    """
    sections = list(sections_of(config))
    trained = {each.model for _, each in sections if isinstance(each, OptimisationConfig)}
    for model in sorted(trained):
        if (warning := backbones.student_warning(model)) is not None:
            yield warning
    drawn = _drawn(config.evaluate, config.evaluate.base)
    for path, section in sections:
        sizes = [] if path == "held_out" else _trained(section)
        if sizes and (warning := size_warning(sizes, drawn, "evaluate")) is not None:
            yield f"{path}: {warning}"


def _trained(section: Section) -> list[Sides]:
    """Heights and widths of the images that a section makes to train on; none if it leaves them."""
    if isinstance(section, ImportConfig | ImagesConfig):
        return imported_sizes(section)
    if isinstance(section, GenerateConfig) and section.items is None:
        return [_drawn(section, section.model)]
    if isinstance(section, PersonalizeConfig):
        size = section.resolution or min(backbones.check_model(section.model).sides)
        return [(size, size)]
    return []


def imported_sizes(section: ImportConfig | ImagesConfig) -> list[Sides]:
    """Return heights and widths that an import scales to; none where images keep their own."""
    if section.resolution is not None:
        return [(section.resolution, section.resolution)]
    return [(height, width) for width, height in section.buckets]


def _drawn(section: GenerateConfig | EvaluateConfig, model: str) -> Sides:
    """Height and width of the images that a section draws."""
    if section.height and section.width:
        return section.height, section.width
    own = backbones.check_model(model).sides
    return section.height or own[0], section.width or own[1]
