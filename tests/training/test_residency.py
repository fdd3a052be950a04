"""Weights in memory while a model is trained: a part at a time, and none that is not needed."""

from __future__ import annotations

import shutil
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import ModelMixin
from transformers import PreTrainedModel

from pictures import noise
from tastemaker.backbones import load_backbone
from tastemaker.backbones.lora.adapters import add_lora
from tastemaker.backbones.places import LORA_FILE
from tastemaker.config.datasets import PairConfig
from tastemaker.config.personalization import PersonalizeConfig
from tastemaker.config.sections import GenerateConfig, ScoreConfig
from tastemaker.config.training import LoraConfig, TextLoraConfig
from tastemaker.evaluation.score import score
from tastemaker.pairing.pair import pair
from tastemaker.sampling.generate import generate
from tastemaker.storage.artifact import ENCODED
from tastemaker.training.personalization.personalize import personalize
from tastemaker.training.preference.train import train
from tastemaker.training.preference.trainer import PreferenceTrainer
from tastemaker.training.saving import save_lora
from trainings import perturb, train_config

VAE, TEXT, UNET = "AutoencoderKL", "CLIPTextModel", "UNet2DConditionModel"


class Reads:
    """Networks that are read from files.

    Attributes:
        seen: At every read the classes that have weights in memory, the one just read last.
    """

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.seen: list[list[str]] = []
        self.networks: list[weakref.ref[torch.nn.Module]] = []
        for kind in (ModelMixin, PreTrainedModel):
            patch.setattr(kind, "from_pretrained", classmethod(self.spied(kind)))

    def spied(self, kind: Any) -> Any:
        original = kind.from_pretrained.__func__

        def from_pretrained(cls: Any, *words: Any, **options: Any) -> Any:
            network = original(cls, *words, **options)
            self.networks.append(weakref.ref(network))
            self.seen.append(self.alive())
            return network

        return from_pretrained

    def alive(self) -> list[str]:
        there = [network for each in self.networks if (network := each()) is not None]
        return [type(each).__name__ for each in there if not next(each.parameters()).is_meta]


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Reads:
    return Reads(monkeypatch)


def unencoded(pairs: Path, folder: Path) -> Path:
    """A copy of pairs and their pool, without what earlier trainings encoded."""
    copied = shutil.copytree(pairs.parent, folder / "data", ignore=lambda *_: [ENCODED])
    return Path(copied, pairs.name)


def test_pairs_are_trained_on_with_a_part_at_a_time(
    pairs: Path, tiny_model: Path, tmp_path: Path, reads: Reads
) -> None:
    own = unencoded(pairs, tmp_path)
    train(train_config(tiny_model), own, tmp_path / "first")
    assert reads.seen == [[VAE], [TEXT], [UNET]]
    reads.seen.clear()
    train(train_config(tiny_model, max_steps=2), own, tmp_path / "encoded")
    assert reads.seen == [[UNET]]


def test_text_encoders_that_train_stay(
    pairs: Path, tiny_model: Path, tmp_path: Path, reads: Reads
) -> None:
    own = unencoded(pairs, tmp_path)
    for name in ("first", "encoded"):
        reads.seen.clear()
        train(train_config(tiny_model, text_lora={"r": 2}), own, tmp_path / name)
        middle = [[TEXT, VAE]] * (name == "first")
        assert reads.seen == [[TEXT], *middle, [TEXT, UNET]]


def test_latents_that_the_sampler_kept_need_no_autoencoder(
    tiny_model: Path, tmp_path: Path, reads: Reads
) -> None:
    prompts = {"name": "texts", "prompts": ["a cat", "a dog"]}
    sampling = {"num_inference_steps": 1, "num_candidates": 2, "prompts": prompts}
    pool = generate(GenerateConfig(model=str(tiny_model), **sampling), tmp_path / "pool")
    score(ScoreConfig(scorers=("sharpness",)), pool)
    made = pair(PairConfig(rule={"scorer": "sharpness"}), pool, tmp_path / "pairs")
    reads.seen.clear()
    train(train_config(tiny_model), made, tmp_path / "policy")
    assert reads.seen == [[TEXT], [UNET]]


def test_a_subject_is_trained_on_with_a_part_at_a_time(
    tiny_model: Path, tmp_path: Path, reads: Reads
) -> None:
    for number in range(2):
        (tmp_path / "photographs").mkdir(exist_ok=True)
        noise(number, 32, 32).save(tmp_path / "photographs" / f"{number}.png")
    options: dict[str, Any] = {
        "model": str(tiny_model),
        "photographs": str(tmp_path / "photographs"),
        "class_name": "cat",
        "device": "cpu",
        "max_steps": 1,
    }
    personalize(PersonalizeConfig(**options), tmp_path / "lora")
    assert reads.seen == [[VAE], [TEXT], [UNET]]
    reads.seen.clear()
    word = {"identifier": "<toy>", "token": {}, "method": "frozen"}
    personalize(PersonalizeConfig(**options, **word), tmp_path / "word")
    assert reads.seen == [[TEXT], [TEXT, VAE], [TEXT, UNET]]


@pytest.mark.parametrize("family", ["sd1", "sdxl", "sd3", "flux"])
def test_a_model_read_in_parts_trains_as_one_that_is_there(
    family: str, models: dict[str, Path], tmp_path: Path
) -> None:
    below = load_backbone(str(models[family]), device="cpu")
    add_lora(below.denoiser, LoraConfig(r=2), 0)
    for number, encoder in enumerate(below.text_encoders):
        add_lora(encoder, TextLoraConfig(r=2), 0, part=f"text_encoder_{number}")
    for network in (below.denoiser, *below.text_encoders):
        perturb(network)
    save_lora(below, str(models[family]), tmp_path / "below")
    model = tmp_path / "below"
    config = train_config(model, batch_size=2, max_steps=2, text_lora={"r": 2})
    rows = [
        {"prompt": f"prompt {i}", "chosen": noise(i, 32, 32), "rejected": noise(9 + i, 32, 32)}
        for i in range(3)
    ]
    loaded = load_backbone(str(model), device="cpu", fused=True)
    staged, whole = (
        PreferenceTrainer(given, rows, config, output=tmp_path / name).train() / LORA_FILE
        for name, given in (("staged", model), ("whole", loaded))
    )
    assert staged.read_bytes() == whole.read_bytes()
