"""A trainer on objects of the user's: the same training as that on folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from diffusers import StableDiffusionPipeline
from PIL import Image

import datasets
from tastemaker.backbones.places import LORA_FILE
from tastemaker.config.training import TrainConfig
from tastemaker.core.errors import TastemakerError
from tastemaker.storage.images import decode
from tastemaker.storage.pairs import PairSet
from tastemaker.training.preference.train import train
from tastemaker.training.preference.trainer import PreferenceTrainer

SHORT: dict[str, Any] = {
    "max_steps": 2,
    "batch_size": 4,
    "learning_rate": 1e-3,
    "report_to": None,
    "device": "cpu",
}


@pytest.fixture(scope="module")
def rows(pairs: Path) -> list[dict[str, Any]]:
    """The pairs with their pictures."""
    pictures = {
        row["candidate_id"]: decode(row["image"]["bytes"], "")
        for pool in PairSet(pairs).pools()
        for row in pool.candidates().to_pylist()
    }
    return [
        {
            "prompt": row["prompt"],
            "chosen": pictures[row["chosen_id"]],
            "rejected": pictures[row["rejected_id"]],
        }
        for row in PairSet(pairs).rows()
    ]


@pytest.fixture(scope="module")
def expected(pairs: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The LoRA of the same training on the folder."""
    folder = tmp_path_factory.mktemp("expected")
    config = TrainConfig(model=str(tiny_model), **SHORT)
    return (train(config, pairs, folder) / LORA_FILE).read_bytes()


def as_files(rows: list[dict[str, Any]], folder: Path) -> list[dict[str, Any]]:
    made = []
    for i, row in enumerate(rows):
        paths = {side: folder / f"{i}-{side}.png" for side in ("chosen", "rejected")}
        for side, path in paths.items():
            row[side].save(path)
        made.append({**row, **paths})
    return made


@pytest.mark.parametrize("kind", ["list", "files", "dataset"])
def test_rows_train_as_their_folder(
    rows: list[dict[str, Any]], expected: bytes, tiny_model: Path, tmp_path: Path, kind: str
) -> None:
    given: Any = rows
    if kind == "files":
        given = as_files(rows, tmp_path)
    elif kind == "dataset":
        given = datasets.Dataset.from_list(rows)
    trainer = PreferenceTrainer(tiny_model, given, output=tmp_path / "out", **SHORT)
    assert (trainer.train() / LORA_FILE).read_bytes() == expected


def test_a_pipeline_trains_in_place(
    rows: list[dict[str, Any]], expected: bytes, tiny_model: Path, tmp_path: Path
) -> None:
    pipeline = StableDiffusionPipeline.from_pretrained(tiny_model)
    folder = PreferenceTrainer(pipeline, rows, output=tmp_path / "out", **SHORT).train()
    assert (folder / LORA_FILE).read_bytes() == expected
    assert pipeline.vae is not None
    fresh = StableDiffusionPipeline.from_pretrained(tiny_model)
    fresh.load_lora_weights(folder)
    with pytest.raises(TastemakerError, match=r"carries a LoRA.*unload_lora_weights"):
        PreferenceTrainer(pipeline, rows, output=tmp_path / "again", **SHORT)
    pipeline.unload_lora_weights()
    again = PreferenceTrainer(pipeline, rows, output=tmp_path / "out", **SHORT)
    again.train()  # finished: nothing is done
    assert again.done == 0
    other = PreferenceTrainer(fresh_pipeline(tiny_model), rows[:4], output=folder, **SHORT)
    with pytest.raises(TastemakerError, match=r"another configuration \(inputs\.pairs"):
        other.train()


def fresh_pipeline(model: Path) -> Any:
    return StableDiffusionPipeline.from_pretrained(model)


def test_an_own_loop_over_the_same_batches_is_the_training(
    rows: list[dict[str, Any]], expected: bytes, tiny_model: Path, tmp_path: Path
) -> None:
    trainer = PreferenceTrainer(tiny_model, rows, output=tmp_path, **SHORT)
    while trainer.done < 2:
        row = trainer.train_step(trainer.batch(trainer.done))
    assert row["loss"] > 0
    trainer.save_model()
    assert (tmp_path / LORA_FILE).read_bytes() == expected


def test_wrong_objects_are_named(
    rows: list[dict[str, Any]], tiny_model: Path, tmp_path: Path
) -> None:
    def refused(match: str, model: Any = tiny_model, pairs: Any = rows, **options: Any) -> None:
        with pytest.raises(TastemakerError, match=match):
            PreferenceTrainer(model, pairs, output=tmp_path / "out", **{**SHORT, **options})

    refused("no pairs", pairs=[])
    refused("pair 1 has no 'rejected'", pairs=[rows[0], {**rows[1], "rejected": None}])
    refused(
        r"pair 0: chosen: 'nowhere.png' is not a file", pairs=[{**rows[0], "chosen": "nowhere.png"}]
    )
    refused("pair 0: chosen is of type int; give a PIL image", pairs=[{**rows[0], "chosen": 3}])
    large = Image.new("RGB", (64, 64))
    refused("images of two sizes", pairs=[{**rows[0], "chosen": large}])
    refused("max_stepz.*max_steps", max_stepz=3)
    refused("model is a object; give a name", model=object())
    assert not (tmp_path / "out").exists()
