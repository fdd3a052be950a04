"""`torch_compile`: few graphs, and the training is that of the network as it is."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch._dynamo.utils import counters

from pictures import noise
from tastemaker.backbones.places import LORA_FILE
from tastemaker.training.preference.trainer import PreferenceTrainer
from trainings import rows

WIDTHS = 2
"""Channels of blocks in the tiny U-Net: one number per level with attention, one in the middle."""


@pytest.fixture(autouse=True)
def none_compiled() -> Iterator[None]:
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


def pairs(*sizes: tuple[int, int]) -> list[dict[str, Any]]:
    """Two pairs of each size."""
    return [
        {"prompt": f"prompt {i}", "chosen": noise(i, *size), "rejected": noise(100 + i, *size)}
        for i, size in enumerate(each for size in sizes for each in (size, size))
    ]


def trainer(
    model: Path, output: Path, *sizes: tuple[int, int], **options: Any
) -> PreferenceTrainer:
    defaults = {"max_steps": 5, "batch_size": 2, "learning_rate": 1e-3, "report_to": None}
    return PreferenceTrainer(
        str(model), pairs(*sizes), output=output, device="cpu", **{**defaults, **options}
    )


@pytest.mark.slow
@pytest.mark.parametrize("checkpointing", [False, True])
def test_switched_adapters_and_sizes_make_no_further_graphs(
    tiny_model: Path, tmp_path: Path, checkpointing: bool
) -> None:
    """One graph per width for the policy, one more with its adapters off, for all sizes.

    The input of the first block alone has no gradient: one more. Blocks are traced and not made
    into machine code, which is what takes long.
    """
    training = trainer(
        tiny_model, tmp_path, (32, 32), (32, 48), gradient_checkpointing=checkpointing
    )
    training.backbone.denoiser.compile_repeated_blocks(backend="eager", dynamic=True)
    training.begin()
    for sizes in ([0, 1], [2, 3], [0, 1], [2, 3], [0, 1]):
        training.train_step(training.batch(training.done, pairs=sizes))
    assert counters["stats"]["unique_graphs"] == 2 * WIDTHS + 1
    assert not counters["graph_break"]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "options",
    [{}, {"gradient_checkpointing": True}, {"method": "full", "reference": "frozen_copy"}],
    ids=lambda options: "-".join(options) or "lora",
)
def test_compiled_training_is_the_plain_one(
    tiny_model: Path, tmp_path: Path, options: dict[str, Any]
) -> None:
    """Losses, names in files; and one that goes on where a plain one was killed.

    The loss multiplies the rounding of errors by beta, and AdamW divides by the gradient's size.
    """
    given = {"loss": {"name": "dpo", "beta": 100}, "learning_rate": 1e-2, "adam_epsilon": 1e-2}
    last = "checkpoints/step-000003.safetensors"
    for name in ("plain", "compiled", "resumed"):
        output = tmp_path / name
        if name == "resumed":
            shutil.copytree(tmp_path / "plain", output)
            for file in ("done.json", last):
                (output / file).unlink()
        own = {**given, **options, "max_steps": 3, "save_steps": 1}
        trainer(tiny_model, output, (32, 32), **own, torch_compile=name != "plain").train()
    plain = rows(tmp_path / "plain")
    weights = load_file(tmp_path / "plain" / last)
    assert counters["stats"]["unique_graphs"]
    for name in ("compiled", "resumed"):
        for one, other in zip(plain, rows(tmp_path / name), strict=True):
            assert other["loss"] == pytest.approx(one["loss"], rel=1e-4)
        found = load_file(tmp_path / name / last)
        assert found.keys() == weights.keys()
        if not options.get("method"):
            loras = [load_file(tmp_path / each / LORA_FILE) for each in ("plain", name)]
            assert loras[0].keys() == loras[1].keys()
