"""The reference is what training starts from, in every way that a training can be set up."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import pytest

from tastemaker.config.training import TrainConfig
from tastemaker.training.preference.train import train
from trainings import rows, train_config


def combinations() -> list[Any]:
    """Every valid choice of method, reference, text encoders that train, and start."""
    found = []
    for method, reference, text, start in itertools.product(
        ("lora", "full", "frozen"),
        ("adapters_off", "frozen_copy", "frozen_adapter"),
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
