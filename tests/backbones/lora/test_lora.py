"""The trained LoRA in a plain diffusers script, and generation against the plain pipeline."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors import safe_open

from conftest import write_run
from tastemaker.backbones.lora.diffusers_file import lora_layers
from tastemaker.config.loading import load
from tastemaker.config.sections import GenerateConfig
from tastemaker.recipes.run import run
from tastemaker.sampling.generate import generate
from tastemaker.storage.images import decode
from tastemaker.storage.pool import Pool
from tastemaker.storage.run_dir import RunDir

PROMPT = "a cat"
FILE = "pytorch_lora_weights.safetensors"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> RunDir:
    """A finished run whose adapters have moved far from zero."""
    model, clip = (request.getfixturevalue(name) for name in ("tiny_model", "tiny_clip"))
    folder = tmp_path_factory.mktemp("lora")
    file = write_run(folder, model, clip)
    return run(load(str(file), ("train.learning_rate=0.05", "train.lora.alpha=6")))


def ours(model: Path, folder: Path, batch_size: int) -> list[np.ndarray]:
    """Images of one prompt by `generate`, with the seeds that it chose."""
    (folder / "prompts.txt").write_text(PROMPT, encoding="utf-8")
    config = GenerateConfig(
        model=str(model),
        prompts=str(folder / "prompts.txt"),
        num_candidates=3,
        num_inference_steps=3,
        guidance_scale=3.0,
        batch_size=batch_size,
        device="cpu",
    )
    rows = Pool(generate(config, folder / "pool")).candidates().to_pylist()
    seeds = [row["seed"] for row in rows]
    images = [np.asarray(decode(row["image"]["bytes"], "test")) for row in rows]
    return [*images, np.array(seeds)]


def plain(pipeline: StableDiffusionPipeline, seed: int) -> np.ndarray:
    """What a user's own script draws."""
    image = pipeline(
        PROMPT,
        num_inference_steps=3,
        guidance_scale=3.0,
        generator=torch.Generator().manual_seed(int(seed)),
    ).images[0]
    return np.asarray(image)


def test_plain_script_draws_the_same_bits(
    trained: RunDir, tiny_model: Path, tmp_path: Path
) -> None:
    *images, seeds = ours(trained.policy, tmp_path, batch_size=1)
    pipeline = StableDiffusionPipeline.from_pretrained(tiny_model)
    pipeline.set_progress_bar_config(disable=True)
    before = plain(pipeline, seeds[0])
    pipeline.load_lora_weights(trained.policy)
    for image, seed in zip(images, seeds, strict=True):
        assert np.array_equal(image, plain(pipeline, seed))
    assert not np.array_equal(before, images[0])


def test_policy_in_training_is_the_policy_on_disk(
    trained: RunDir, tiny_model: Path, tmp_path: Path
) -> None:
    """The last validation sheet, drawn from the live network, equals one drawn from the file."""
    from tastemaker.backbones import load_backbone
    from tastemaker.config.training import ValidationConfig
    from tastemaker.training.preference.validation import ValidationSheets

    config = load(str(trained.config)).train
    backbone = load_backbone(str(trained.policy), device="cpu")
    sheets = ValidationSheets(
        ValidationConfig(**config.validation.model_dump()), backbone, tmp_path, config.seed
    )
    drawn = np.asarray(sheets.draw(4), dtype=int)
    stored = np.asarray(
        decode((trained.policy / "validation" / "step-00004.png").read_bytes(), "sheet"), dtype=int
    )
    assert abs(drawn - stored).max() <= 1


def test_images_do_not_depend_on_the_batch(
    trained: RunDir, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    *one, seeds = ours(trained.policy, tmp_path, batch_size=1)
    *three, same = ours(trained.policy, tmp_path_factory.mktemp("three"), batch_size=3)
    assert np.array_equal(seeds, same)
    for first, second in zip(one, three, strict=True):
        assert abs(first.astype(int) - second.astype(int)).max() <= 1


def test_file_keeps_alpha_and_diffusers_keys(trained: RunDir) -> None:
    with safe_open(trained.policy / FILE, framework="pt") as file:
        keys, metadata = list(file.keys()), file.metadata()
    assert all(key.startswith("unet.") for key in keys)
    assert '"unet.lora_alpha": 6' in metadata["lora_adapter_metadata"]
    pipeline = StableDiffusionPipeline.from_pretrained(load(str(trained.config)).model)
    pipeline.load_lora_weights(trained.policy)
    (config,) = pipeline.unet.peft_config.values()
    assert (config.r, config.lora_alpha) == (2, 6)


def test_attention_and_convolutions_together_reach_diffusers(tiny_model: Path) -> None:
    """Its loader takes one dialect per file; of two it would lose whole layers without an error."""
    from peft import LoraConfig

    source, plain = (StableDiffusionPipeline.from_pretrained(tiny_model) for _ in range(2))
    source.unet.add_adapter(LoraConfig(r=2, target_modules=["to_q", "conv_in"]), "policy")
    layers = lora_layers(source.unet, "policy")
    plain.load_lora_weights({f"unet.{key}": value for key, value in layers.items()})
    loaded = {
        name
        for name, _ in plain.unet.named_parameters()
        if name.endswith((".lora_A.default_0.weight", ".lora_B.default_0.weight"))
    }
    assert len(loaded) == len(layers)
    assert {"attn1.to_q" in name for name in loaded} == {True, False}
