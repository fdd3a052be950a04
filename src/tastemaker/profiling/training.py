"""Speed of a training step on random pictures, beside its yardsticks."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from tastemaker.backbones import Backbone
from tastemaker.config.training import TrainConfig, ValidationConfig
from tastemaker.core.hardware import torch_dtype
from tastemaker.core.seeding import keyed_seed
from tastemaker.doctor.live_bytes import module_bytes
from tastemaker.profiling.flops import flops, matmul_rate
from tastemaker.profiling.timing import PartTimer, interleaved, peak_bytes, ratios, spread
from tastemaker.profiling.yardsticks import Floor, PlainStep
from tastemaker.training.preference.objective import FrozenCopy
from tastemaker.training.preference.trainer import PreferenceTrainer

MARKED = 2
"""Steps whose parts are timed."""


def profile_training(
    model: Backbone | Any,
    config: TrainConfig,
    folder: Path,
    *,
    size: tuple[int, int],
    rounds: int,
    parts: bool = False,
) -> dict[str, Any]:
    """Measure a training step, the floor and the plain step in turn.

    Args:
        model: A backbone or a loaded pipeline without a LoRA; its encoders stay with it.
        config: Of the training; one micro-batch is one step here.
        folder: For the training's files.
        size: Height and width of the pictures, which are random.
        rounds: Times that each step is timed, after one that is not.
        parts: Time the parts of both steps too.

    Returns:
        Seconds, pairs per second, ratios to the yardsticks, FLOPs, utilisation and peak memory.
    """
    rows = random_pairs(config.batch_size, size)
    trainer = PreferenceTrainer(model, rows, single(config), output=folder)
    trainer.begin()
    floor, plain = Floor(trainer), PlainStep(trainer, rows)
    device, dtype = trainer.accelerator.device, torch_dtype(config.dtype)

    with steps_of(trainer) as step:
        step()
        peak = peak_bytes(device, step)
        plain.step()
        counted = counted_flops(trainer, step)
        rate = matmul_rate(device, dtype)
        works: dict[str, Callable[[], Any]] = {"step": step, "floor": floor.step}
        took = interleaved(device, {**works, "plain": plain.step}, rounds)
    rate = max(rate, matmul_rate(device, dtype))
    found = summary(took, config.batch_size, counted, rate)
    found["peak_bytes"] = None if peak is None else peak - _spare_bytes(trainer)
    if parts:
        found["parts"] = {
            "step": _parts(trainer, device),
            "plain": _plain_parts(plain, device),
        }
    return found


@contextlib.contextmanager
def steps_of(trainer: PreferenceTrainer) -> Iterator[Callable[[], None]]:
    """Give a function that does a trainer's next step with all that belongs to it, as `run` does.

    Args:
        trainer: After `begin`.
    """
    with contextlib.closing(trainer._batches()) as batches:

        def step() -> None:
            trainer._step(itertools.islice(batches, 1))
            if trainer.reads():
                trainer.read()

        yield step


def random_pairs(number: int, size: tuple[int, int]) -> list[dict[str, Any]]:
    """Make pairs of random pictures.

    Args:
        number: Of pairs.
        size: Height and width in pixels.

    Returns:
        Rows of prompt, chosen and rejected.
    """
    sides = (pictures(number, size, seed) for seed in (1, 2))
    return [
        {"prompt": f"subject {i}", "chosen": chosen, "rejected": rejected}
        for i, (chosen, rejected) in enumerate(zip(*sides, strict=True))
    ]


def summary(took: dict[str, list[float]], pairs: int, counted: int, rate: float) -> dict[str, Any]:
    """Summarise seconds of `step`, `floor` and `plain`, round by round.

    Args:
        took: Seconds by name.
        pairs: Per step.
        counted: FLOPs of a step.
        rate: FLOPs per second of matrix products.

    Returns:
        Spreads; `of_floor` is the floor's time over the step's, `over_plain` the plain step's.
    """
    return {
        "pairs_per_second": spread([pairs / each for each in took["step"]]),
        "seconds": {name: spread(values) for name, values in took.items()},
        "of_floor": ratios(took["floor"], took["step"]),
        "over_plain": ratios(took["plain"], took["step"]),
        "flops": counted,
        "matmul_rate": rate,
        "utilisation": spread([counted / each / rate for each in took["step"]]),
    }


def single(config: TrainConfig) -> TrainConfig:
    """Return a training as it is profiled: one micro-batch per step, from the base, no extras."""
    update: dict[str, Any] = {
        "gradient_accumulation_steps": 1,
        "start": None,
        "curriculum": None,
        "validation": ValidationConfig(),
        "report_to": None,
        "max_steps": 1000,  # more than are done
    }
    if config.reference == "frozen_adapter":  # that of `start`, which costs what none costs
        update["reference"] = "adapters_off"
    return config.model_copy(update=update)


def pictures(number: int, size: tuple[int, int], seed: int) -> list[Image.Image]:
    """Make random pictures.

    Args:
        number: Of pictures.
        size: Height and width in pixels.
        seed: Of their pixels.
    """
    generator = np.random.default_rng(keyed_seed(seed, "profile"))
    values = generator.integers(0, 256, (number, *size, 3), dtype=np.uint8)
    return [Image.fromarray(each) for each in values]


def counted_flops(trainer: PreferenceTrainer, step: Callable[[], None]) -> int:
    """FLOPs of a step without those that gradient checkpointing does again."""
    denoiser = trainer.backbone.denoiser
    again = trainer.config.gradient_checkpointing
    if again:
        denoiser.disable_gradient_checkpointing()
    try:
        return flops(step, trainer.accelerator.device)
    finally:
        if again:
            denoiser.enable_gradient_checkpointing()


def _spare_bytes(trainer: PreferenceTrainer) -> int:
    """Bytes of the networks that a training drops before its first step."""
    networks = trainer.backbone.networks.values()
    kept = {id(trainer.backbone.denoiser), *map(id, trainer.text_encoders)}
    return sum(module_bytes(each) for each in networks if id(each) not in kept)


def _parts(trainer: PreferenceTrainer, device: torch.device) -> dict[str, float]:
    timer = PartTimer(device)
    networks = [trainer.policy, *trainer.text_encoders]
    if isinstance(trainer.reference, FrozenCopy):
        networks += [trainer.reference.denoiser, *trainer.reference.text_encoders]
    with contextlib.ExitStack() as stack:
        for network in networks:
            stack.enter_context(timer.forwards(network))
        for method, part in (("backward", "backward"), ("clip_grad_norm_", "optimiser")):
            stack.enter_context(timer.calls(trainer.accelerator, method, part))
        stack.enter_context(timer.calls(trainer.optimizer, "step", "optimiser"))
        for _ in range(MARKED):
            with timer.step():
                with timer.part("data"):
                    batch = trainer.batch(trainer.done)
                trainer._step([batch])
    return timer.shares()


def _plain_parts(plain: PlainStep, device: torch.device) -> dict[str, float]:
    timer = PartTimer(device)
    for _ in range(MARKED):
        plain.step(timer)
    return timer.shares()
