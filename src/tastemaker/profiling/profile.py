"""Profile a run: its training step and its drawing as configured, and each option on and off."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tastemaker.backbones import load_backbone
from tastemaker.config.evaluation import EvaluateConfig
from tastemaker.config.runs import RunConfig
from tastemaker.config.sections import SamplingConfig, sections_of
from tastemaker.config.training import TrainConfig
from tastemaker.core.errors import TastemakerError
from tastemaker.core.hardware import environment, fast_dtype, number_of_processes
from tastemaker.doctor.memory import drawn_size
from tastemaker.doctor.peak_memory import Size
from tastemaker.profiling.drawing import profile_drawing
from tastemaker.profiling.rows import drawing_table, guarded, parts_table, training_table
from tastemaker.profiling.training import profile_training
from tastemaker.training.optimization import load_policy

OWN = "the run's own"


def profile(config: RunConfig, rounds: int = 3) -> dict[str, Any]:
    """Measure a run's first training on pairs and its drawing.

    Pictures and prompts are made up: what a step takes does not depend on them.

    Args:
        config: The run.
        rounds: Times that each step is timed.

    Returns:
        JSON-like: the machine, one row per set of options of training and drawing. A row that
        cannot be measured here holds `error`.

    Raises:
        TastemakerError: The run trains on no pairs, several processes were launched, there are no
            rounds, or the run's own options do not work here.
    """
    if rounds < 1:
        raise TastemakerError(f"--rounds is {rounds}; give 1 or more.")
    if number_of_processes() > 1:
        raise TastemakerError("profile measures one process: start it without a launcher.")
    sections = [section for _, section in sections_of(config)]
    train = next((each for each in sections if isinstance(each, TrainConfig)), None)
    if train is None:
        raise TastemakerError(f"recipe {config.recipe!r} has no training on pairs to profile.")
    drawing = next(each for each in sections if isinstance(each, SamplingConfig))
    size = drawn_size(config)
    return {
        "run": config.name,
        "model": train.model,
        "environment": environment(),
        "rounds": rounds,
        "batch_size": train.batch_size,
        "training": _rows(
            train, switched(train), lambda options, own: _training(options, size, rounds, own)
        ),
        "drawing": _rows(drawing, _of_both(drawing), lambda options, _: _drawing(options, rounds)),
    }


def switched(config: TrainConfig) -> list[dict[str, Any]]:
    """Return the options that are measured beside the run's own, one row each."""
    statistics = config.statistics
    whole = statistics is not None and statistics.target == "reference"  # not its errors alone
    return [
        *([] if whole else [{"reference_draws": None if config.reference_draws else 1}]),
        *_of_both(config),
        {"gradient_checkpointing": not config.gradient_checkpointing},
    ]


def text(found: dict[str, Any]) -> str:
    """Write what `profile` returned as Markdown."""
    machine, own = found["environment"], found["training"][0]
    device = machine["gpu"] if machine["gpu"] != "none" else f"{machine['threads']} threads"
    height, width = own["size"]
    setting = (
        f"{found['model']}, {found['batch_size']} pairs of {width} x {height} pixels per step,"
        f" {own['dtype']}; {device}, torch {machine['torch']}. Random pictures and prompts;"
        f" median [min, max] of {found['rounds']} interleaved rounds."
    )
    tables = (
        training_table(found["training"]),
        parts_table(own["parts"]),
        drawing_table(found["drawing"]),
    )
    return "\n\n".join((f"# Speed of {found['run']}", setting, *tables))


def _of_both(config: Any) -> list[dict[str, Any]]:
    """The options that training and drawing share."""
    return [
        *({"dtype": name} for name in ("fp32", "bf16") if name != config.dtype),
        {"torch_compile": not config.torch_compile},
    ]


def _rows(
    own: Any, changes: list[dict[str, Any]], measure: Callable[[Any, bool], dict[str, Any]]
) -> list[dict[str, Any]]:
    """Measure the run's own options, then those with one change; of these one may fail."""
    rows = [{"options": OWN, **measure(own, True)}]
    for change in changes:

        def changed(change: dict[str, Any] = change) -> dict[str, Any]:
            if change.get("dtype") == "bf16" and fast_dtype(own.device) != "bf16":
                raise TastemakerError("not measured: this device is slow in bf16")
            return measure(own.model_copy(update=change), False)

        [(key, value)] = change.items()
        word = "null" if value is None else str(value).lower()
        rows.append(guarded(f"{key}={word}", changed))
    return rows


def _training(config: TrainConfig, size: Size, rounds: int, parts: bool) -> dict[str, Any]:
    backbone = load_policy(config, whole=config.method == "full")
    whole = (size[0] or backbone.sides[0], size[1] or backbone.sides[1])
    with tempfile.TemporaryDirectory() as folder:
        measured = profile_training(
            backbone, config, Path(folder), size=whole, rounds=rounds, parts=parts
        )
    return {"size": list(whole), "dtype": config.dtype, **measured}


def _drawing(config: Any, rounds: int) -> dict[str, Any]:
    model = config.base if isinstance(config, EvaluateConfig) else config.model
    backbone = load_backbone(
        model, device=config.device, dtype=config.dtype, scheduler=config.scheduler
    )
    return profile_drawing(backbone, config, rounds)
