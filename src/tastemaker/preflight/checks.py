"""Checks of options before a command or run begins.

Every command checks its own section, and a run all of its sections before the first begins: first
what can be looked for without torch (`check`), and where there is work to do also what the
libraries have to be loaded for (`check_loading`). No weights are loaded.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from tastemaker.config.datasets import PromptFilters
from tastemaker.config.evaluation import EvaluateConfig
from tastemaker.config.sections import (
    SamplingConfig,
    Section,
    columns,
    marked,
    sections_of,
)
from tastemaker.core.errors import TastemakerError, nearest
from tastemaker.core.registry import CAPTIONED, COMPARISONS, PROMPTS
from tastemaker.core.values import Names, Weights
from tastemaker.storage.artifact import finished_key
from tastemaker.storage.pairs import PairSet
from tastemaker.storage.pool import Pool
from tastemaker.storage.trained_prompts import shared_prompts


def check(section: Section) -> None:
    """Look for everything that a section names.

    Args:
        section: Of one command, or a whole run.

    Raises:
        TastemakerError: The first that is missing, with the path of its option; prompts that
            search guidance and judge; an evaluation's pictures that are not one per prompt.
    """
    _look(section, LOOKS)
    for path, inside in sections_of(section):
        if isinstance(inside, EvaluateConfig):
            _at(path, _refuse_shared_prompts, inside)
            _at(path, _check_pictures, inside)


def check_loading(section: Section) -> None:
    """Look for what a section names in the libraries, and for what its models cannot do.

    Args:
        section: Of one command, or a whole run, which `check` has passed.

    Raises:
        TastemakerError: The first that is missing or does not fit, with the path of its option.
    """
    _look(section, LOADING_LOOKS)
    for path, inside in sections_of(section):
        if isinstance(inside, SamplingConfig):
            _at(path, _check_sampling, inside)


def _look(section: Section, looks: Looks) -> None:
    seen = set()
    # Models come last: a hub may have to answer.
    for path, mark, value in sorted(marked(section), key=lambda each: each[1] == Names("model")):
        if value is not None and (key := (id(mark), str(value))) not in seen:
            seen.add(key)
            _at(path, _look_for, mark, value, looks)


def expect(folder: Path, what: str, *others: str) -> None:
    """Make sure that a folder is what a command takes.

    Args:
        folder: The folder.
        what: "pool" or "pairs".
        *others: What else the command takes.

    Raises:
        TastemakerError: It is missing, is not finished, or is something else.
    """
    found = next((kind for kind, holds in KINDS.items() if holds(folder)), None)
    if found in KINDS and found not in {what, *others}:
        meant = " or ".join(TAKEN[each] for each in (what, *others))
        raise TastemakerError(f"{folder} is {CALLED[str(found)]}; give {meant}.")
    finished_key(folder)


def expect_columns(pools: Iterable[Pool], section: Section) -> None:
    """Make sure that pools have the columns of scores that a section names.

    Raises:
        TastemakerError: One is missing.
    """
    named = list(columns(section))
    for pool in pools:
        held = pool.scorers()
        for path, name in named:
            if name not in held:
                raise TastemakerError(
                    f"{path}: {pool.folder} has no scores by {name!r}; run `score` with it."
                    f" {nearest(name, held)}"
                )


KINDS: dict[str, Callable[[Path], bool]] = {
    "pairs": lambda folder: PairSet(folder).file.is_file(),
    "pool": lambda folder: any(folder.glob("candidates-*.parquet")),
    "run": lambda folder: (folder / "config.yaml").is_file(),
    "model": lambda folder: any(
        (folder / name).is_file() for name in ("model.json", "model_index.json")
    ),
}
"""Kinds of folders, by their files."""

CALLED = {
    "pairs": "a folder of pairs",
    "pool": "a pool of candidates",
    "run": "a whole run",
    "model": "a model",
}
TAKEN = {"pairs": "a folder of pairs, from `pair`", "pool": "a pool, from `generate` or `import`"}


def _at(path: str, looks: Callable[..., None], *arguments: Any) -> None:
    """Run a check; what it raises says at which option."""
    try:
        looks(*arguments)
    except TastemakerError as error:
        raise TastemakerError(f"{path}: {error}" if path else str(error)) from None
    except OSError as error:  # a name that is longer than any file's, a folder that is locked
        raise TastemakerError(f"{path}: {error.strerror or error}; check the path.") from error


def _look_for(mark: Any, value: Any, looks: Looks) -> None:
    """Look for the value of one option, by its mark."""
    from tastemaker.scorers.base import Needs, Subject

    if isinstance(mark, Names):
        if mark.what in looks and (mark.what != "words" or isinstance(value, str)):
            for each in (value,) if isinstance(value, str) else value:
                looks[mark.what](each)
    elif looks is LOADING_LOOKS:
        return
    elif isinstance(mark, Subject):
        _look_for_photographs(value)
    elif isinstance(mark, Weights):
        from tastemaker.scorers.availability import refuse_missing

        refuse_missing(value, tokenizer=mark.tokenizer)
    elif isinstance(mark, Needs):
        if Path(str(value)).suffix == mark.suffix and importlib.util.find_spec(mark.module) is None:
            raise TastemakerError(
                f"an {mark.suffix} file needs the missing extra {mark.extra!r}:"
                f" pip install 'tastemaker[{mark.extra}]'."
            )
    elif mark is PROMPTS:
        from tastemaker.datasets.prompts.sources import load_prompts

        load_prompts(value)
    elif mark in (CAPTIONED, COMPARISONS):
        mark.bind(value.name, value.options)()


def _look_for_model(model: str) -> None:
    from tastemaker.backbones.places import index_of, root_of

    index_of(root_of(model))


def _load_model(model: str) -> None:
    from tastemaker.backbones import check_model

    check_model(model)


def _look_for_lora(folder: str) -> None:
    from tastemaker.backbones.places import LORA_FILE

    if not (Path(folder) / LORA_FILE).is_file():
        raise TastemakerError(
            f"{folder!r} has no LoRA ({LORA_FILE}); give a folder that `train` or `import` wrote."
        )


def _look_for_photographs(folder: str) -> None:
    from tastemaker.datasets.subjects import photograph_files

    photograph_files(folder)


def _look_for_picture(path: str) -> None:
    from tastemaker.datasets.prompts.pictures import picture_files

    picture_files(path)


def _look_for_device(name: str) -> None:
    from tastemaker.core.hardware import torch_device

    if name not in {"auto", "cpu"}:
        torch_device(name)


def _look_for_features(name: str) -> None:
    from tastemaker.metrics.features import check_features
    from tastemaker.scorers.availability import refuse_missing

    check_features(name, refuse_missing)


def _look_for_classifier(name: str) -> None:
    from tastemaker.metrics.features import classifier_network

    classifier_network(name)


def _look_for_tracker(name: str) -> None:
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers

    if name not in LOGGER_TYPE_TO_CLASS:
        raise TastemakerError(
            f"tracker {name!r} is none of accelerate's. {nearest(name, LOGGER_TYPE_TO_CLASS)}"
        )
    # accelerate would leave it out, and log nothing.
    if name not in map(str, get_available_trackers()):
        raise TastemakerError(f"tracker {name!r} needs its library; install it, or set null.")


def _look_for_words(file: str) -> None:
    from tastemaker.datasets.filters import prompt_reasons

    prompt_reasons(PromptFilters(without=file))


Looks = dict[str, Callable[[str], None]]

LOOKS: Looks = {
    "device": _look_for_device,
    "lora": _look_for_lora,
    "model": _look_for_model,
    "photographs": _look_for_photographs,
    "picture": _look_for_picture,
    "pool": lambda folder: expect(Path(folder).expanduser(), "pool"),
    "words": _look_for_words,
}
"""Look-up of a value by its mark; columns are looked for in the pool, by `expect_columns`."""

LOADING_LOOKS: Looks = {
    "classifier": _look_for_classifier,
    "features": _look_for_features,
    "model": _load_model,
    "tracker": _look_for_tracker,
}
"""The same, for what needs torch."""


def _refuse_shared_prompts(config: EvaluateConfig) -> None:
    from tastemaker.datasets.prompts.sources import load_prompts

    if config.guidance_search is None:
        return
    searched = load_prompts(config.guidance_search.prompts)
    shared = shared_prompts(load_prompts(config.prompts), searched)
    if shared:
        raise TastemakerError(
            f"guidance_search.prompts: {len(shared)} of them are evaluation prompts too"
            f" ({shared[0]!r}); name others."
        )


def _check_pictures(config: EvaluateConfig) -> None:
    from tastemaker.datasets.prompts.pictures import pictures_by
    from tastemaker.datasets.prompts.sources import load_prompts

    if config.ip_adapter_image is None:
        return
    pictures = pictures_by(config.ip_adapter_image, load_prompts(config.prompts))
    if config.guidance_search is not None and len({*pictures.values()}) > 1:
        raise TastemakerError(
            "ip_adapter_image: the prompts that guidance is searched with have no pictures of their"
            " own; give a single picture, or leave guidance_search out."
        )


def _check_sampling(config: SamplingConfig) -> None:
    from tastemaker.backbones import check_sampling

    check_sampling(
        config, getattr(config, "base" if isinstance(config, EvaluateConfig) else "model")
    )
