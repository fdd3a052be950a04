"""The reference is what training starts from, in every way that a training can be set up."""

from __future__ import annotations

import itertools
import math
import shutil
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from safetensors.torch import load_file

from tastemaker.backbones.places import LORA_FILE
from tastemaker.config.alternatives import NOISES, REFERENCES, Noise, Reference
from tastemaker.config.training import TrainConfig
from tastemaker.training.preference.train import train
from trainings import rows, train_config


def combinations() -> list[Any]:
    """Every valid choice of method, reference, text encoders that train, and start."""
    found = []
    for method, reference, text, start in itertools.product(
        ("lora", "full", "frozen"),
        get_args(Reference),
        (None, {"r": 2}),
        (None, "denoiser", "both"),
    ):
        options = {"method": method, "reference": reference, "text_lora": text}
        try:
            TrainConfig(model="m", start=start, **options)
        except ValueError:
            continue
        if start == "both" and text is None:
            continue  # refused once the model is there
        name = f"{method}-{reference}-{'text' if text else 'no_text'}-from_{start}"
        found.append(pytest.param(options, start, id=name))
    return found


@pytest.fixture(scope="module")
def starts(
    pairs: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """First stages whose adapters have moved far, with and without the text encoder's."""
    folder = tmp_path_factory.mktemp("starts")
    moved = {"learning_rate": 0.05, "max_steps": 2}
    return {
        "denoiser": train(train_config(tiny_model, **moved), pairs, folder / "denoiser"),
        "both": train(
            train_config(tiny_model, text_lora={"r": 2}, **moved), pairs, folder / "both"
        ),
    }


@pytest.mark.parametrize(("options", "start"), combinations())
def test_the_margin_starts_at_zero(
    options: dict[str, Any],
    start: str | None,
    starts: dict[str, Path],
    pairs: Path,
    tiny_model: Path,
    tmp_path: Path,
) -> None:
    """Exactly: policy and reference run the same operations on the same batch."""
    # Embeddings made in another way than the policy's would differ most in few digits.
    precision = "bf16" if options["text_lora"] else "fp32"
    begun = str(starts[start]) if start else None
    config = train_config(tiny_model, max_steps=1, dtype=precision, start=begun, **options)
    (row,) = rows(train(config, pairs, tmp_path / "out"))
    if start is not None and options["reference"] == "adapters_off":
        # By choice against the base, from which the start has moved away.
        assert abs(row["rewards/margins"]) > 0.1
        return
    assert row["rewards/margins"] == 0
    assert row["errors/chosen"] == row["errors/rejected"] == 0
    assert row["loss"] == pytest.approx(math.log(2), rel=1e-6)


def parts(folder: Path, step: int) -> dict[str, dict[str, torch.Tensor]]:
    """Weights and reference of a checkpoint, in one order."""
    tensors = load_file(folder / "checkpoints" / f"step-{step:06d}.safetensors")
    return {
        kind: {
            name.removeprefix(f"{kind}."): tensors[name]
            for name in sorted(tensors)
            if name.startswith(f"{kind}.")
        }
        for kind in ("weights", "reference")
    }


@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_synced_reference_follows_the_policy(
    pairs: Path, tiny_model: Path, tmp_path: Path, method: str
) -> None:
    options = {"method": method, "reference": "synced", "max_steps": 3, "save_steps": 1}
    config = train_config(tiny_model, **options, ref_model_mixup_alpha=0.25, ref_model_sync_steps=1)
    folder = train(config, pairs, tmp_path / "ema")
    before, after = parts(folder, 2), parts(folder, 3)
    for name, value in after["reference"].items():
        expected = 0.75 * before["reference"][name] + 0.25 * after["weights"][name]
        assert torch.allclose(value, expected, atol=1e-7), name
    again = shutil.copytree(folder, tmp_path / "again")
    for file in ("done.json", "checkpoints/step-000003.safetensors"):
        (again / file).unlink()
    train(config, pairs, again)
    last = "checkpoints/step-000003.safetensors"
    for file in ("metrics.jsonl", last):
        assert (again / file).read_bytes() == (folder / file).read_bytes()


def test_a_reference_may_be_renewed_every_few_steps(
    pairs: Path, tiny_model: Path, tmp_path: Path
) -> None:
    options = {"reference": "synced", "ref_model_mixup_alpha": 1.0, "ref_model_sync_steps": 2}
    folder = train(train_config(tiny_model, save_steps=1, **options), pairs, tmp_path / "out")
    second, third = parts(folder, 2), parts(folder, 3)
    for name, value in second["weights"].items():
        assert torch.equal(second["reference"][name], value)
        assert torch.equal(third["reference"][name], value)
    # The policy is the reference again when the third step begins.
    assert [row["rewards/margins"] == 0 for row in rows(folder)] == [True, False, True]
    exported = load_file(folder / LORA_FILE)
    assert len(exported) == len(third["weights"]), "the reference is no part of the LoRA"


def test_fixed_draws_need_a_reference_that_stays(tiny_model: Path) -> None:
    with pytest.raises(ValueError, match="reference=synced changes while training"):
        train_config(tiny_model, reference="synced", reference_draws=1)


def test_every_alternative_is_described() -> None:
    assert tuple(REFERENCES) == get_args(Reference)
    assert tuple(NOISES) == get_args(Noise)
