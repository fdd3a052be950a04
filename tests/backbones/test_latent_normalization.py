"""LAN: AdaIN of a policy's latents, step by step, to those of its base."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline

from tastemaker.backbones import Backbone, SamplingBatch, load_backbone, merge_adapters
from tastemaker.backbones.latent_normalization import LatentNormalization, adain, moments
from tastemaker.config.sections import AdapterConfig, GenerateConfig, ReconstructConfig
from tastemaker.sampling.generate import generate
from tastemaker.sampling.loading import load_policy
from tastemaker.storage.pool import Pool
from tastemaker.training.preference.train import train
from trainings import train_config

STEPS = 3
LAN = AdapterConfig(lan=True)


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory, pairs: Path, tiny_model: Path) -> Path:
    """A LoRA of denoiser and text encoder that has moved far."""
    folder = tmp_path_factory.mktemp("policy")
    far: dict[str, Any] = {"learning_rate": 0.05, "text_lora": {"r": 2}}
    denoiser = train(train_config(tiny_model, learning_rate=0.05), pairs, folder / "denoiser")
    text = train(train_config(tiny_model, method="frozen", **far), pairs, folder / "text")
    return merge_adapters([denoiser, text], folder / "both")


def config(adapter: AdapterConfig, **options: Any) -> GenerateConfig:
    given = {"prompts": "default", "model": "nano", **options}
    return GenerateConfig(
        adapter=adapter, device="cpu", num_inference_steps=STEPS, guidance_scale=3.0, **given
    )


def drawn(backbone: Backbone) -> torch.Tensor:
    embedded = (backbone.encode_prompts([prompt] * 2) for prompt in ("a cat", ""))
    how = {"num_inference_steps": STEPS, "guidance_scale": 3.0}
    return backbone.sample(SamplingBatch(*embedded, [7, 8], **how))


def test_numbers_by_hand() -> None:
    """Of 1, 3 the mean is 2 and the deviation 1; of 10, 30 they are 20 and 10."""
    one = torch.tensor([1.0, 3.0]).view(1, 1, 1, 2)
    other = torch.tensor([10.0, 30.0]).view(1, 1, 1, 2)
    assert [each.item() for each in moments(other)] == [20.0, 10.0]
    assert torch.equal(adain(one, moments(other)), other)
    skewed = torch.tensor([0.0, 0.0, 0.0, 4.0]).view(1, 1, 2, 2)  # mean 1, deviation sqrt 3
    expected = torch.tensor([20 - 10 / 3**0.5] * 3 + [20 + 30 / 3**0.5])
    assert torch.allclose(adain(skewed, moments(other)).flatten(), expected)
    constant = torch.full((1, 1, 1, 2), 5.0)
    assert torch.equal(adain(constant, moments(other)), torch.full((1, 1, 1, 2), 20.0))


def test_channels_and_images_have_their_own_moments() -> None:
    generator = torch.Generator().manual_seed(0)
    one, other = torch.randn(2, 2, 3, 5, 7, generator=generator)
    made = adain(one, moments(3 * other + 1))
    mean, std = moments(made)
    assert mean.shape == (2, 3, 1, 1)
    assert torch.allclose(mean, (3 * other + 1).mean((2, 3), keepdim=True), atol=1e-5)
    assert torch.allclose(std, 3 * other.std((2, 3), correction=0, keepdim=True), atol=1e-5)
    packed = one.flatten(2).transpose(1, 2)
    again = adain(packed, moments((3 * other + 1).flatten(2).transpose(1, 2)))
    assert torch.allclose(again.transpose(1, 2).reshape(made.shape), made, atol=1e-5)


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_policy_equal_to_its_base_samples_as_without(policy: Path, dtype: str) -> None:
    zero = {"scale": 0.0, "text_range": (0, 1)}
    plain = drawn(load_policy(config(AdapterConfig(**zero), dtype=dtype), str(policy)))
    with_lan = drawn(load_policy(config(AdapterConfig(lan=True, **zero), dtype=dtype), str(policy)))
    assert torch.allclose(with_lan, plain, atol=1e-4 if dtype == "fp32" else 0.05)


@pytest.mark.parametrize("text_range", [None, (500, 1000)])
def test_final_latents_have_the_moments_of_the_base(
    policy: Path, tiny_model: Path, text_range: tuple[int, int] | None
) -> None:
    base = drawn(load_policy(config(AdapterConfig()), str(tiny_model)))
    switches = {"text_range": text_range}
    plain = drawn(load_policy(config(AdapterConfig(**switches)), str(policy)))
    cured = drawn(load_policy(config(AdapterConfig(lan=True, **switches)), str(policy)))
    for one, other in zip(moments(cured), moments(base), strict=True):
        assert torch.allclose(one, other, atol=1e-4)
    assert not torch.allclose(moments(plain)[0], moments(base)[0], atol=1e-2)
    assert not torch.allclose(cured, base, atol=1e-2)


def test_a_plain_pipeline_normalises_the_same(policy: Path, tiny_model: Path) -> None:
    """By diffusers alone, with the callbacks."""
    pipeline = StableDiffusionPipeline.from_pretrained(tiny_model)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.load_lora_weights(policy)
    lan = LatentNormalization()

    def call(callback: Any) -> torch.Tensor:
        generator = [torch.Generator().manual_seed(seed) for seed in (7, 8)]
        return pipeline(
            ["a cat"] * 2,
            generator=generator,
            num_inference_steps=STEPS,
            guidance_scale=3.0,
            output_type="latent",
            callback_on_step_end=callback,
        ).images

    pipeline.disable_lora()
    pipeline.text_encoder.disable_adapters()
    call(lan.record)
    pipeline.enable_lora()
    pipeline.text_encoder.enable_adapters()
    ours = drawn(load_policy(config(LAN), str(policy)))
    assert torch.allclose(call(lan.apply), ours, atol=1e-4)
    assert len(lan.recorded) == STEPS


@pytest.mark.parametrize("family", ["sdxl", "sd3", "flux"])
def test_every_family(family: str, models: dict[str, Path]) -> None:
    """Without a LoRA that acts, base and policy are one."""
    backbone = load_backbone(str(models[family]), device="cpu")
    plain = drawn(backbone)
    backbone.lan = True
    assert torch.allclose(drawn(backbone), plain, atol=1e-4)


def test_pools_are_other_candidates(policy: Path, tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("a cat\n", encoding="utf-8")
    ids = []
    for name, switches in (("plain", AdapterConfig()), ("lan", LAN)):
        given = {"prompts": str(tmp_path / "prompts.txt"), "num_candidates": 1}
        pool = generate(config(switches, model=str(policy), **given), tmp_path / name)
        ids += Pool(pool).candidates()["candidate_id"].to_pylist()
    assert len(set(ids)) == 2


def test_reconstructions_are_refused() -> None:
    with pytest.raises(ValueError, match="samples from noise"):
        ReconstructConfig(model="nano", adapter=LAN)
