"""A LoRA of swapped pairs, in the unconditional branch of guidance."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tastemaker.backbones import Backbone, SamplingBatch, load_backbone, stack_adapter
from tastemaker.backbones.lora.adapters import add_lora
from tastemaker.cli.command_line import main
from tastemaker.config.sections import AdapterConfig, GenerateConfig
from tastemaker.config.training import LoraConfig
from tastemaker.core.errors import TastemakerError
from tastemaker.sampling.generate import generate
from tastemaker.sampling.loading import PolicyLoader, load_policy
from tastemaker.storage.pairs import PairSet
from tastemaker.storage.pool import Pool
from tastemaker.training.preference.train import train
from tastemaker.training.preference.trainer import PreferenceTrainer
from tastemaker.training.saving import save_lora
from trainings import train_config

FILE = "pytorch_lora_weights.safetensors"
SCALE = 3.0


@pytest.fixture(scope="module")
def loras(
    tmp_path_factory: pytest.TempPathFactory, pairs: Path, tiny_model: Path
) -> dict[str, Path]:
    """A policy, a negative-preference LoRA, and both on one another; all far from the base."""
    folder = tmp_path_factory.mktemp("loras")
    far: dict[str, Any] = {"learning_rate": 0.05}
    policy = train(train_config(tiny_model, **far), pairs, folder / "policy")
    negative = train(train_config(tiny_model, swapped=True, **far), pairs, folder / "negative")
    both = stack_adapter(negative, policy, folder / "both")
    return {"policy": policy, "negative": negative, "both": both}


def zero_lora(model: Path, output: Path) -> Path:
    """A LoRA as it is before training: B is 0."""
    backbone = load_backbone(str(model), device="cpu")
    add_lora(backbone.denoiser, LoraConfig(r=2), seed=0)
    save_lora(backbone, str(model), output)
    return output


def config(negative: Path | None = None, **options: Any) -> GenerateConfig:
    given = {"model": "nano", "prompts": "default", "guidance_scale": SCALE, **options}
    adapter = AdapterConfig(negative=negative and str(negative))
    return GenerateConfig(adapter=adapter, device="cpu", num_inference_steps=2, **given)


def drawing(backbone: Backbone, scale: float = SCALE) -> SamplingBatch:
    embedded = (backbone.encode_prompts([prompt] * 2) for prompt in ("a cat", ""))
    return SamplingBatch(*embedded, [7, 8], num_inference_steps=2, guidance_scale=scale)


def drawn(backbone: Backbone, scale: float = SCALE) -> torch.Tensor:
    return backbone.sample(drawing(backbone, scale))


@pytest.mark.parametrize("family", ["sd1", "sdxl", "sd3"])
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_a_negative_lora_of_zeros_changes_nothing(
    family: str, dtype: str, models: dict[str, Path], tmp_path: Path
) -> None:
    model = models[family]
    negative = zero_lora(model, tmp_path / "zero")
    plain, guided = (
        drawn(load_policy(config(each, dtype=dtype), str(model))) for each in (None, negative)
    )
    assert torch.allclose(guided, plain, atol=1e-4 if dtype == "fp32" else 0.1)


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_each_branch_has_its_own_weights(loras: dict[str, Path], dtype: str) -> None:
    """By hand, of two models: negative + scale * (policy - negative).

    In fp32 the policy is in the weights, in bf16 beside them.
    """
    guided = load_policy(config(loras["negative"], dtype=dtype), str(loras["policy"]))
    policy, both = (load_backbone(str(loras[name]), device="cpu") for name in ("policy", "both"))
    batch = drawing(policy)
    scheduler = policy.pipeline.scheduler
    scheduler.set_timesteps(batch.num_inference_steps)
    latents = batch.noise(policy.latent_shape(None, None), policy.device)
    for t in scheduler.timesteps:
        with torch.no_grad():
            given = policy.predict(policy.denoiser, latents, t, batch.conditioning)
            without = both.predict(both.denoiser, latents, t, batch.negative)
        prediction = without + SCALE * (given - without)
        latents = scheduler.step(prediction, t, latents).prev_sample
    close = {"atol": 1e-4 if dtype == "fp32" else 0.2}
    assert torch.allclose(drawn(guided).float(), latents, **close)
    assert not torch.allclose(drawn(policy), latents, atol=1.0)


def test_swapped_pairs_are_pairs_with_their_sides_exchanged(
    pairs: Path, tiny_model: Path, tmp_path: Path
) -> None:
    exchanged = PairSet(tmp_path / "pairs")
    rows = [
        {**row, "chosen_id": row["rejected_id"], "rejected_id": row["chosen_id"]}
        for row in PairSet(pairs).rows()
    ]
    exchanged.write(rows, PairSet(pairs).pools())
    for name, noise in (("drawn", {}), ("kept", {"noise": "kept"})):
        files = []
        for source, swapped in ((PairSet(pairs), True), (exchanged, False)):
            options = train_config(tiny_model, swapped=swapped, **noise)
            output = tmp_path / f"{name}-{swapped}"
            PreferenceTrainer(str(tiny_model), source, options, output=output).train()
            files.append((output / FILE).read_bytes())
        assert files[0] == files[1]


def test_without_guidance_there_is_no_branch_and_models_take_turns(
    loras: dict[str, Path], tiny_model: Path
) -> None:
    loader, policy = PolicyLoader(), str(loras["policy"])
    for negative, scale in ((loras["negative"], SCALE), (loras["negative"], 1.0), (None, SCALE)):
        options = config(negative, guidance_scale=scale)
        turned, alone = loader(options, policy), load_policy(options, policy)
        assert torch.equal(drawn(turned, scale), drawn(alone, scale))
    assert torch.equal(
        drawn(loader(config(loras["negative"], guidance_scale=1.0), policy), 1.0),
        drawn(load_policy(config(guidance_scale=1.0), policy), 1.0),
    )


def test_it_is_an_option_of_generate_and_an_ordinary_lora(
    loras: dict[str, Path], tiny_model: Path, tmp_path: Path
) -> None:
    (tmp_path / "prompts.txt").write_text("a cat\n", encoding="utf-8")
    rows = []
    for name, negative in (("plain", None), ("negative", loras["negative"])):
        given = {"prompts": str(tmp_path / "prompts.txt"), "num_candidates": 1}
        pool = generate(config(negative, model=str(tiny_model), **given), tmp_path / name)
        rows += Pool(pool).candidates().to_pylist()
    assert rows[0]["candidate_id"] != rows[1]["candidate_id"]
    assert rows[0]["image"] != rows[1]["image"]
    assert main(["export", str(loras["negative"]), str(tmp_path / "kohya")]) == 0
    assert list((tmp_path / "kohya").glob("*.safetensors"))


def test_what_cannot_be_a_negative_branch(
    loras: dict[str, Path], models: dict[str, Path], tiny_model: Path, pairs: Path, tmp_path: Path
) -> None:
    with pytest.raises(TastemakerError, match="no unconditional branch"):
        load_policy(config(loras["negative"]), str(models["flux"]))
    with pytest.raises(TastemakerError, match="is a LoRA of"):
        load_policy(config(loras["negative"]), str(models["sd1"]))
    text = train_config(tiny_model, method="frozen", text_lora={"r": 2})
    with pytest.raises(TastemakerError, match="train one without text_lora"):
        load_policy(config(train(text, pairs, tmp_path / "text")), str(tiny_model))
