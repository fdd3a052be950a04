"""A model read part by part: each part is that of the model read whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline

from families import FAMILIES
from tastemaker.backbones import Backbone, load_backbone
from tastemaker.backbones.lora.adapters import add_lora
from tastemaker.backbones.places import name_base
from tastemaker.backbones.staged import load_parts, load_staged
from tastemaker.backbones.textual_inversion import add_token, save_token
from tastemaker.config.training import LoraConfig, TextLoraConfig
from tastemaker.core.errors import TastemakerError
from tastemaker.training.encoding import encodings_key
from tastemaker.training.saving import save_lora
from trainings import perturb


@pytest.fixture(scope="module")
def chains(models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """On each family's model a LoRA of denoiser and text encoders, on it another and a word."""
    return {name: adapted(models[name], tmp_path_factory.mktemp(name)) for name in FAMILIES}


def adapted(model: Path, folder: Path) -> str:
    below = str(model)
    for place in (folder / "first", folder / "second"):
        backbone = load_backbone(below, device="cpu", fused=True)
        add_lora(backbone.denoiser, LoraConfig(r=2), 0)
        for number, encoder in enumerate(backbone.text_encoders):
            add_lora(encoder, TextLoraConfig(r=2), 0, part=f"text_encoder_{number}")
        for network in (backbone.denoiser, *backbone.text_encoders):
            perturb(network)
        save_lora(backbone, below, place)
        below = str(place)
    if not backbone.learns_words:
        return below
    backbone = load_backbone(below, device="cpu", fused=True)
    add_token(backbone, "<toy>", initializer="cat", vectors=2)
    save_token(backbone, folder, "<toy>")
    name_base(below, folder)
    return str(folder)


def assert_equal(staged: Backbone, whole: Backbone, settings: Any = None) -> None:
    """Read VAE, text encoders and denoiser in turn, and compare them bit for bit."""
    model = whole.name
    assert encodings_key(staged, model, settings) == encodings_key(whole, model, settings)
    encoders = [each for each in staged.networks if each.startswith("text_encoder")]
    for names in (["vae"], encoders, [staged.part]):
        assert load_parts(staged, names) == names
        assert load_parts(staged, names) == []
    assert list(staged.networks) == list(whole.networks)
    for name, expected in whole.networks.items():
        network = staged.networks[name]
        assert network.training == expected.training
        found, values = network.state_dict(), expected.state_dict()
        assert found.keys() == values.keys()
        for key, value in values.items():
            assert found[key].dtype == value.dtype
            assert torch.equal(found[key], value), f"{name}.{key}"
    prompts = ["a <toy> here", "a cat"]
    expected = whole.encode_prompts(prompts)
    for key, value in staged.encode_prompts(prompts).items():
        assert torch.equal(value, expected[key])


@pytest.mark.parametrize("dtype", ["fp32", "fp16"])
@pytest.mark.parametrize("family", FAMILIES)
def test_parts_are_those_of_the_whole_model(
    family: str, dtype: str, chains: dict[str, str]
) -> None:
    options = {"device": "cpu", "dtype": dtype}
    whole = load_backbone(chains[family], fused=True, **options)
    assert_equal(load_staged(chains[family], **options), whole)


@pytest.mark.parametrize("plain", [(), ("vae",), ("text_encoder", "unet")])
def test_each_part_is_read_in_the_variant_that_it_has(
    plain: tuple[str, ...], models: dict[str, Path], tmp_path: Path
) -> None:
    pipeline = DiffusionPipeline.from_pretrained(models["sd1"], dtype=torch.float16)
    pipeline.save_pretrained(tmp_path, variant="fp16")
    for part in plain:
        for file in (tmp_path / part).glob("*.safetensors"):
            file.rename(file.with_name(file.name.replace(".fp16", "")))
    model = str(tmp_path)
    assert_equal(load_staged(model, device="cpu"), load_backbone(model, device="cpu"))


def test_a_lora_on_a_part_that_takes_none_is_refused_with_the_first_part(
    models: dict[str, Path], tmp_path: Path
) -> None:
    backbone = load_backbone(str(models["sdxl"]), device="cpu")
    for number, encoder in enumerate(backbone.text_encoders):
        add_lora(encoder, TextLoraConfig(r=2), 0, part=f"text_encoder_{number}")
    save_lora(backbone, str(models["sd1"]), tmp_path)
    staged = load_staged(str(tmp_path), device="cpu")
    with pytest.raises(TastemakerError, match="adapts text_encoder_2"):
        load_parts(staged, ["vae"])
