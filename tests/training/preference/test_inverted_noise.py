"""Inverted noise: there and back, kept in shards, and with credit for denoising steps."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from folders import digests
from stable_diffusion import SIZE
from tastemaker.backbones import SamplingBatch, load_backbone
from tastemaker.backbones.gradient_sampling import sample_with_gradient, unroll
from tastemaker.backbones.inversion import invert
from tastemaker.core.errors import TastemakerError
from tastemaker.core.registry import CREDITS
from tastemaker.training.preference.train import train
from tastemaker.training.preference.trainer import PreferenceTrainer
from trainings import train_config

STEPS = 50


@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl", "sd3", "flux"])
def test_inverted_and_sampled_again_it_is_the_image(family: str, models: dict[str, Path]) -> None:
    backbone = load_backbone(str(models[family]), device="cpu")
    given = backbone.encode_prompts(["a cat", "a red dog"])
    how: dict[str, Any] = {"num_inference_steps": STEPS, "guidance_scale": 1.0}
    batch = SamplingBatch(given, given, [7, 8], **how)
    sides = {"height": SIZE, "width": SIZE}
    image = sample_with_gradient(backbone, backbone.denoiser, batch, keep=0, **sides)
    noise = invert(backbone, image, given, STEPS)
    shape = backbone.latent_shape(SIZE, SIZE)
    scheduler = backbone.deterministic_grid(STEPS, shape)
    step = backbone.step(backbone.denoiser, scheduler, batch)
    again = unroll(step, noise, scheduler.timesteps, keep=0, checkpointing=False)
    start = batch.noise(shape, backbone.device)

    def apart(one: torch.Tensor, other: torch.Tensor) -> float:
        return float((one - other).norm() / other.norm())

    assert apart(again, image) < 0.05
    assert apart(noise, start) < 0.05
    assert apart(image, start) > 0.2


def test_a_step_by_hand(models: dict[str, Path]) -> None:
    """One step from the last timestep but the first: `x = (x' - predicted * eps(x')) / own`."""
    backbone = load_backbone(str(models["sd1"]), device="cpu")
    given = backbone.encode_prompts(["a cat"])
    image = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    scheduler = backbone.deterministic_grid(1, image.shape[1:])
    (timestep,) = scheduler.timesteps
    now, after = (float(scheduler.alphas_cumprod[t]) for t in (int(timestep), 0))
    with torch.no_grad():
        noise = backbone.predict(backbone.denoiser, image, timestep, given)
    clean = (image - (1 - after) ** 0.5 * noise) / after**0.5
    expected = now**0.5 * clean + (1 - now) ** 0.5 * noise
    assert torch.allclose(invert(backbone, image, given, 1), expected, atol=1e-4)


def trainer_of(model: Path, pairs: Path, folder: Path, **options: Any) -> PreferenceTrainer:
    given = {"noise": "inverted", "inversion_steps": 3, "sample_posterior": False, **options}
    return PreferenceTrainer(str(model), pairs, train_config(model, **given), output=folder)


def test_images_train_on_their_own_noise_kept_on_disk(
    pairs: Path, tiny_model: Path, tmp_path: Path
) -> None:
    pairs = shutil.copytree(pairs.parent, tmp_path / "copied") / pairs.name
    trainer = trainer_of(tiny_model, pairs, tmp_path / "a")
    batch = trainer.batch(0, pairs=[5, 2])
    data, plain = trainer.data, load_backbone(str(tiny_model), device="cpu")
    index = torch.tensor([5, 2])
    clean, _ = data.latents.take(data.images(index))
    conditioning, _ = data.text(data.prompts(index).repeat(2))
    expected = invert(plain, clean, conditioning, 3)
    torch.testing.assert_close(batch.target, expected, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(batch.target[0], batch.target[2], atol=0.1)
    swapped = trainer_of(tiny_model, pairs, tmp_path / "b", swapped=True).batch(0, pairs=[5, 2])
    assert torch.equal(swapped.target, batch.target.roll(2, 0))

    (kept,) = (pairs / "encoded").glob("inverted-*")
    before = digests(kept)
    (shard,) = kept.glob("noise-*.safetensors")
    shard.write_bytes(shard.read_bytes()[:-1])
    again = trainer_of(tiny_model, pairs, tmp_path / "c").batch(0, pairs=[5, 2])
    assert torch.equal(again.target, batch.target)
    assert digests(kept) == before
    in_memory = trainer_of(tiny_model, pairs, tmp_path / "d", cache="none").batch(0, pairs=[5, 2])
    assert torch.equal(in_memory.target, batch.target)


@pytest.mark.parametrize("credit", CREDITS.names())
def test_every_credit_scheme_trains_on_it_and_resumes(
    credit: str, pairs: Path, tiny_model: Path, tmp_path: Path
) -> None:
    def options(steps: int) -> Any:
        given = {"noise": "inverted", "inversion_steps": 3, "credit": {"name": credit}}
        return train_config(tiny_model, max_steps=steps, save_steps=1, lora={"r": 2}, **given)

    whole = train(options(2), pairs, tmp_path / "whole")
    train(options(1), pairs, tmp_path / "parts")
    config = options(2)
    PreferenceTrainer(str(tiny_model), pairs, config, output=tmp_path / "parts").run()
    file = "pytorch_lora_weights.safetensors"
    assert (tmp_path / "parts" / file).read_bytes() == (whole / file).read_bytes()


def test_rows_in_memory_are_inverted_too_and_sizes_must_agree(
    tiny_model: Path, tmp_path: Path
) -> None:
    def rows(*sizes: int) -> Any:
        made = [Image.new("RGB", (size, size), "red") for size in sizes]
        return [{"prompt": "a dog", "chosen": each, "rejected": each} for each in made]

    assert trainer_of(tiny_model, rows(32), tmp_path / "a").batch(0, pairs=[0]).target.std() > 0
    with pytest.raises(TastemakerError, match="images of one size"):
        trainer_of(tiny_model, rows(32, 64), tmp_path / "b")
