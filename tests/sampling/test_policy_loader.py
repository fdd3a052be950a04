"""Models of one base, loaded one after another, draw as each does alone."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tastemaker.backbones import Backbone, SamplingBatch, merge_adapters, stack_adapter
from tastemaker.backbones.places import TOKEN_FILE, name_base
from tastemaker.config.sections import AdapterConfig, GenerateConfig
from tastemaker.sampling.loading import PolicyLoader, load_policy
from tastemaker.training.preference.train import train
from trainings import train_config


@pytest.fixture(scope="module")
def policies(
    tmp_path_factory: pytest.TempPathFactory, pairs: Path, tiny_model: Path
) -> dict[str, Path]:
    """LoRAs of either network, of both, one on another, and a learned word."""
    folder = tmp_path_factory.mktemp("policies")
    text = {"text_lora": {"r": 2, "learning_rate": 0.05}}
    unet = train(train_config(tiny_model, learning_rate=0.05), pairs, folder / "unet")
    encoder = train(train_config(tiny_model, method="frozen", **text), pairs, folder / "text")
    both = merge_adapters([unet, encoder], folder / "both")
    stacked = stack_adapter(unet, both, folder / "stacked")
    word = folder / "word"
    word.mkdir()
    width = load_policy(options(), str(tiny_model)).text_encoders[0].config.hidden_size
    save_file({"<toy>": torch.ones(1, width)}, word / TOKEN_FILE)
    name_base(str(tiny_model), word)
    found = {"unet": unet, "text": encoder, "both": both, "stacked": stacked, "word": word}
    return {"base": tiny_model, **found}


def options(dtype: str = "fp32", **adapter: float) -> GenerateConfig:
    switches = AdapterConfig(**adapter)
    return GenerateConfig(
        model="nano", prompts="default", device="cpu", dtype=dtype, adapter=switches
    )


def drawn(backbone: Backbone) -> torch.Tensor:
    embedded = (backbone.encode_prompts([prompt]) for prompt in ("a <toy>", ""))
    return backbone.sample(SamplingBatch(*embedded, [7], num_inference_steps=2, guidance_scale=3.0))


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_a_model_after_another_is_the_model_alone(policies: dict[str, Path], dtype: str) -> None:
    loader, seen = PolicyLoader(), []
    order = ("unet", "base", "stacked", "both", "text", "unet", "word", "base")
    for name in order:
        config, model = options(dtype), str(policies[name])
        backbone = loader(config, model)
        assert backbone.name == model
        assert torch.equal(drawn(backbone), drawn(load_policy(config, model)))
        seen.append(backbone)
    assert len({id(each) for each in seen}) == 3  # the word's, and the base's before and after
    images = [drawn(load_policy(options(dtype), str(each))) for each in policies.values()]
    assert all(not torch.equal(one, other) for one, other in itertools.pairwise(images))


def test_a_lora_is_put_on_at_each_strength(policies: dict[str, Path]) -> None:
    loader, model = PolicyLoader(), str(policies["both"])
    for scale in (1.0, 0.5, 0.5, 1.0):
        config = options(scale=scale)
        assert torch.equal(drawn(loader(config, model)), drawn(load_policy(config, model)))
