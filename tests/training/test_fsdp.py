"""A training that one process began goes on on two that split the weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate import DistributedType
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_multi_gpu_env
from PIL import Image
from safetensors.torch import load_file

from launching import launch
from tastemaker.cli.command_line import main
from tastemaker.core.errors import TastemakerError
from tastemaker.core.hardware import processes
from tastemaker.training.fsdp import prepare
from tastemaker.training.optimization import FSDP2, refuse_engines
from tastemaker.training.preference.train import train
from trainings import rows, train_config


def split(words: list[str]) -> int:
    """The command line. accelerate splits weights over GPUs alone; torch does it over CPUs too."""
    processes().distributed_type = DistributedType.MULTI_GPU
    return main(words)


EXACT = {
    # AdamW divides by the gradient's size, and a large beta multiplies errors: both would blow up
    # the last digits, in which one sum and two half sums differ.
    "learning_rate": 1e-2,
    "adam_epsilon": 1e-2,
    "loss": {"name": "dpo", "beta": 100},
}
LORA = {"ema_decay": 0.5, "validation": {"steps": 3, "prompts": ["a cat"]}}
FULL = {"method": "full", "reference": "frozen_copy"}


def environment_of(config: Path) -> dict[str, str]:
    """What `accelerate launch --config_file` sets for the processes that it starts."""
    parsed = launch_command_parser().parse_args(["--config_file", str(config), "script.py"])
    args, _, _ = _validate_launch_command(parsed)
    return {key: str(value) for key, value in prepare_multi_gpu_env(args).items()}


def as_words(options: dict[str, Any]) -> list[str]:
    return [f"{key}={json.dumps(value)}" for key, value in options.items()]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("options", [LORA, FULL], ids=["lora", "full"])
@pytest.mark.slow
def test_a_training_begun_on_one_process_goes_on_on_two(
    options: dict[str, Any], pairs: Path, tiny_model: Path, tmp_path: Path
) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    options = {**EXACT, **options, "save_steps": 1, "gradient_accumulation_steps": 2}
    train(train_config(tiny_model, batch_size=4, **options), pairs, one)
    # Killed in its third step.
    shutil.copytree(one, two)
    for name in ("done.json", "checkpoints/step-000003.safetensors"):
        (two / name).unlink()
    words = ["train", str(pairs), str(two), f"model={tiny_model}", "device=cpu", "max_steps=3"]
    words += as_words({**options, "batch_size": 2, "report_to": None})
    ended = launch(split, words, folder=tmp_path, environment=environment_of(FSDP2))
    assert ended.code == 0, ended.err[-3000:]
    alone, together = (
        load_file(each / "checkpoints/step-000003.safetensors") for each in (one, two)
    )
    assert together.keys() == alone.keys()
    for name, value in alone.items():
        # The second moment is a square: its last digits double what the gradient's say.
        torch.testing.assert_close(together[name], value, rtol=1e-2, atol=1e-4, msg=name)
    assert len(rows(two)) == len(rows(one)) == 3
    for key, value in rows(one)[-1].items():
        assert rows(two)[-1][key] == pytest.approx(value, rel=1e-3, abs=5e-4), key
    model = next(one.rglob("unet/*.safetensors"), one / "pytorch_lora_weights.safetensors")
    saved = load_file(two / model.relative_to(one))
    for name, value in load_file(model).items():
        torch.testing.assert_close(saved[name], value, rtol=1e-2, atol=1e-4, msg=name)
    for sheet in (one / "validation").glob("*.png"):
        drawn = [
            torch.tensor(list(Image.open(each / "validation" / sheet.name).tobytes()))
            for each in (one, two)
        ]
        assert (drawn[0] - drawn[1]).abs().max() <= 2


@pytest.mark.parametrize(
    ("kind", "fsdp2", "splits", "says"),
    [
        (DistributedType.DEEPSPEED, False, True, "launched with deepspeed.*fsdp2.yaml"),
        (DistributedType.FSDP, False, True, "launched with fsdp: .*fsdp2.yaml"),
        (DistributedType.FSDP, True, False, "align_prop cannot shard"),
    ],
)
def test_launches_that_no_training_has_are_refused(
    kind: DistributedType, fsdp2: bool, splits: bool, says: str
) -> None:
    with pytest.raises(TastemakerError, match=says):
        refuse_engines(SimpleNamespace(distributed_type=kind, is_fsdp2=fsdp2), shards=splits)


def test_a_text_encoder_that_trains_is_not_split() -> None:
    network = torch.nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(network.parameters())
    with pytest.raises(TastemakerError, match="launch without"):
        prepare(SimpleNamespace(is_fsdp2=True), network, [network], optimizer)
