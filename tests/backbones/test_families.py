"""Every family by the same commands: images as diffusers draws them, all losses, exact resume."""

from __future__ import annotations

import copy
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

from families import FAMILIES
from stable_diffusion import SIZE
from tastemaker.backbones import Backbone, SamplingBatch, load_backbone, stack
from tastemaker.backbones.gradient_sampling import sample_with_gradient
from tastemaker.backbones.lora.adapters import has_adapter
from tastemaker.backbones.lora.switches import switch_policy
from tastemaker.backbones.lora.weights import fuse_policy
from tastemaker.backbones.schedulers import set_scheduler
from tastemaker.backbones.textual_inversion import add_token, load_token
from tastemaker.config.loading import load
from tastemaker.config.sections import AdapterConfig
from tastemaker.config.training import TrainConfig
from tastemaker.core.errors import TastemakerError
from tastemaker.core.registry import CREDITS, LOSSES
from tastemaker.recipes.run import run
from tastemaker.storage.pool import Pool
from tastemaker.storage.run_dir import RunDir
from tastemaker.training.preference.train import train

FLOWS = ("sd3", "flux")
SEEDS = (1, 2)
PROMPTS = ("a cat", "a red dog")
HOW = {"num_inference_steps": 4, "guidance_scale": 3.0}
SIDES = {"height": SIZE, "width": SIZE}


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def model(family: str, models: dict[str, Path]) -> Path:
    return models[family]


@pytest.fixture(scope="module")
def backbone(model: Path) -> Backbone:
    return load_backbone(str(model), device="cpu")


@pytest.fixture(scope="module")
def drawing(backbone: Backbone) -> SamplingBatch:
    negative = stack([backbone.encode_negative("")] * len(PROMPTS))
    return SamplingBatch(backbone.encode_prompts(PROMPTS), negative, SEEDS, **HOW)


@pytest.fixture(scope="module")
def finished(
    family: str, model: Path, tiny_clip: Path, tmp_path_factory: pytest.TempPathFactory
) -> RunDir:
    """A whole run: five commands and a report."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "prompts.txt").write_text("a cat\na red dog\ntwo trees\n", encoding="utf-8")
    sampling = {**HOW, **SIDES, "num_inference_steps": 2, "batch_size": 3}
    scorer = {"name": "clip", "label": "tiny", "model": str(tiny_clip)}
    data = {
        "name": family,
        "output": str(folder / "runs"),
        "model": str(model),
        "device": "cpu",
        "generate": {**sampling, "prompts": str(folder / "prompts.txt"), "num_candidates": 2},
        "score": {"scorers": [scorer]},
        "pair": {"rule": {"name": "best_worst", "scorer": "tiny"}},
        "train": training(),
        "evaluate": {**sampling, "prompts": str(folder / "prompts.txt"), "scorers": [scorer]},
    }
    (folder / "run.yaml").write_text(yaml.safe_dump(data), encoding="utf-8")
    return run(load(str(folder / "run.yaml")))


def training(**options: Any) -> dict[str, Any]:
    """The section `train` of a short run."""
    short = {"max_steps": 4, "batch_size": 2, "save_steps": 2, "learning_rate": 1e-3}
    return {**short, "lora": {"r": 2}, "report_to": None, **options}


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_images_are_those_of_the_pipeline_and_guidance_is_one_batch(
    backbone: Backbone, drawing: SamplingBatch, family: str, scale: float
) -> None:
    batch = replace(drawing, guidance_scale=scale)
    seen = set()

    def count(module: Any, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        seen.add(len(given[0] if given else named["hidden_states"]))

    hook = backbone.denoiser.register_forward_pre_hook(count, with_kwargs=True)
    try:
        latents = backbone.sample(batch, **SIDES)
    finally:
        hook.remove()
    twice = scale > 1 and family != "flux"  # whose transformer takes guidance as an input
    assert latents.shape[1:] == backbone.latent_shape(SIZE, SIZE)
    assert seen == {len(PROMPTS) * (2 if twice else 1)}
    generators = [torch.Generator().manual_seed(seed) for seed in SEEDS]
    theirs = backbone.pipeline(
        list(PROMPTS), generator=generators, **{**HOW, "guidance_scale": scale}, **SIDES
    ).images
    for ours, image in zip(backbone.vae.decode_images(latents), theirs, strict=True):
        assert np.array_equal(np.asarray(ours), np.asarray(image))


def test_gradient_reaches_what_the_sampler_draws(
    family: str, model: Path, drawing: SamplingBatch
) -> None:
    scheduler = None if family in FLOWS else "DDIMScheduler"
    backbone = load_backbone(str(model), device="cpu", scheduler=scheduler)
    drawn = backbone.sample(drawing, **SIDES)
    ours = sample_with_gradient(backbone, backbone.denoiser, drawing, keep=1, **SIDES)
    assert ours.requires_grad
    assert torch.allclose(ours, drawn, atol=1e-5)


def test_text_encoders_make_the_cached_embeddings(
    backbone: Backbone, drawing: SamplingBatch
) -> None:
    cached = drawing.conditioning
    live = backbone.embed(backbone.text_encoders, backbone.tokenize(PROMPTS), cached)
    assert set(live) == set(cached)
    for name, value in live.items():
        assert torch.allclose(value, cached[name], atol=1e-5)


def test_the_last_layer_computes_in_fp32(model: Path, drawing: SamplingBatch) -> None:
    """In training with bf16: what the loss sees has more digits than bf16, in a copy as well."""
    backbone = load_backbone(str(model), device="cpu", dtype="bf16")
    shape = (len(PROMPTS), *backbone.latent_shape(SIZE, SIZE))
    noisy = torch.randn(shape, generator=torch.Generator().manual_seed(0))

    def predict(denoiser: torch.nn.Module) -> torch.Tensor:
        timesteps = torch.tensor([100, 900])
        with torch.autocast("cpu", torch.bfloat16):
            return backbone.predict(denoiser, noisy, timesteps, drawing.conditioning).detach()

    rounded = predict(backbone.denoiser).float()
    backbone.prepare_training("bf16")
    copied = copy.deepcopy(backbone.denoiser)
    fine = predict(backbone.denoiser)
    assert fine.dtype == torch.float32
    assert (fine != fine.bfloat16()).float().mean() > 0.9
    assert torch.allclose(fine, rounded, rtol=0.05, atol=0.05)
    for parameter in getattr(backbone.denoiser, backbone.last).parameters():
        parameter.data.zero_()
    assert torch.equal(predict(copied), fine)
    assert not predict(backbone.denoiser).any()
    negative = stack([backbone.encode_negative("")] * len(PROMPTS))
    sheet = SamplingBatch(backbone.encode_prompts(PROMPTS), negative, SEEDS, **HOW)
    assert torch.isfinite(backbone.sample(sheet, **SIDES)).all()  # outside of autocast


def test_target_gives_the_latents_back(backbone: Backbone) -> None:
    generator = torch.Generator().manual_seed(0)
    shape = (5, *backbone.latent_shape(SIZE, SIZE))
    latents, noise = (torch.randn(shape, generator=generator) for _ in range(2))
    timesteps = torch.tensor([0, 10, 400, 800, 990])
    noisy = backbone.add_noise(latents, noise, timesteps).double()
    target = backbone.target(latents, noise, timesteps).double()
    estimate = backbone.noise_schedule.x0_estimate()
    offset, slope = (
        each[timesteps].view(-1, 1, 1, 1) for each in (estimate.offset, estimate.slope)
    )
    assert torch.allclose(offset * noisy + slope * target, latents.double(), atol=2e-4)


def test_reconstruction_from_all_noise_is_a_sample(
    backbone: Backbone, drawing: SamplingBatch
) -> None:
    latents = torch.randn(2, *backbone.latent_shape(SIZE, SIZE))
    again = backbone.resample(latents, backbone.num_timesteps - 1, drawing)
    assert torch.allclose(again, backbone.sample(drawing, **SIDES), atol=1e-5)
    assert torch.equal(backbone.resample(latents, 0, drawing), latents)
    half = backbone.resample(latents, 500, drawing)
    assert half.shape == latents.shape
    assert not torch.allclose(half, again, atol=1e-2)


def test_five_commands(finished: RunDir) -> None:
    report = json.loads(finished.report_json.read_text())
    assert set(report["models"]) == {"base", "policy"}
    assert finished.report_html.stat().st_size > 1000
    rows = [json.loads(line) for line in (finished.policy / "metrics.jsonl").open()]
    assert rows[0]["rewards/margins"] == 0
    assert len(rows) == 4
    moved = load_file(finished.policy / "pytorch_lora_weights.safetensors")
    assert any(".lora_B" in key or "lora.up" in key for key in moved)
    assert Pool(finished.candidates).scores().num_rows == 6


@pytest.mark.parametrize("method", ["lora", "full"])
def test_resumed_is_undisturbed(finished: RunDir, model: Path, tmp_path: Path, method: str) -> None:
    reference = "frozen_copy" if method == "full" else "adapters_off"
    options = training(method=method, reference=reference, device="cpu")
    config = TrainConfig(model=str(model), **options)
    whole = train(config, finished.pairs, tmp_path / "whole")
    again = tmp_path / "again"
    shutil.copytree(whole, again)
    (again / "done.json").unlink()
    (again / "checkpoints" / "step-000004.safetensors").unlink()
    for name in ("pytorch_lora_weights.safetensors", "model_index.json"):
        (again / name).unlink(missing_ok=True)
    train(config, finished.pairs, again)
    for file in sorted(whole.rglob("*.safetensors")):
        assert file.read_bytes() == (again / file.relative_to(whole)).read_bytes(), file


@pytest.mark.slow
def test_every_loss_and_credit_scheme_trains(finished: RunDir, model: Path, tmp_path: Path) -> None:
    methods = (("lora", "adapters_off"), ("full", "frozen_copy"))
    # Each loss and each scheme once, by the methods in turn: they know neither family nor method.
    losses, schemes = LOSSES.names(), CREDITS.names()
    for number in range(max(len(losses), len(schemes))):
        method, reference = methods[number % len(methods)]
        plan = {
            "loss": losses[number % len(losses)],
            "credit": schemes[number % len(schemes)],
            "method": method,
            "reference": reference,
        }
        config = TrainConfig(model=str(model), **training(max_steps=2, device="cpu", **plan))
        output = train(config, finished.pairs, tmp_path / str(number))
        rows = [json.loads(line) for line in (output / "metrics.jsonl").open()]
        assert rows[0]["grad_norm"] > 0, plan
        assert all(np.isfinite(list(row.values())).all() for row in rows), plan
        shutil.rmtree(output)


def test_text_encoders_train_along(
    finished: RunDir, model: Path, tmp_path: Path, family: str
) -> None:
    options = training(text_lora={"r": 2}, proportion_empty_prompts=0.5, device="cpu")
    trained = train(TrainConfig(model=str(model), **options), finished.pairs, tmp_path / "policy")
    with (trained / "metrics.jsonl").open() as metrics:
        assert json.loads(next(metrics))["rewards/margins"] == 0
    file = trained / "pytorch_lora_weights.safetensors"
    assert bytes(model) not in file.read_bytes(), "the file says where its base lay"
    state = load_file(file)
    parts = {key.partition(".")[0] for key in state}
    encoders = {"text_encoder", "text_encoder_2"} if family in ("sdxl", "sd3") else {"text_encoder"}
    assert parts == {"transformer" if family in FLOWS else "unet", *encoders}
    base, policy = (load_backbone(str(each), device="cpu") for each in (model, trained))
    before, after = base.encode_prompts(PROMPTS), policy.encode_prompts(PROMPTS)
    name = "prompt_embeds" if family in ("sd1", "sd2") else "pooled_prompt_embeds"
    assert not torch.equal(before[name], after[name])


def test_lora_of_another_family_is_refused(
    finished: RunDir, family: str, models: dict[str, Path], tmp_path: Path
) -> None:
    base = models["sd3" if family not in FLOWS else "sd1"]
    lora = tmp_path / "lora"
    shutil.copytree(finished.policy, lora)
    (lora / "model.json").write_text(json.dumps({"base": str(base)}), encoding="utf-8")
    with pytest.raises(TastemakerError, match="belongs to another family|does not fit"):
        load_backbone(str(lora), device="cpu")


def test_sizes_that_the_family_cannot_draw_are_refused(
    backbone: Backbone, drawing: SamplingBatch
) -> None:
    with pytest.raises(TastemakerError, match="multiples of"):
        backbone.sample(drawing, height=SIZE + 1, width=SIZE)


def test_scheduler_of_another_kind_is_refused(backbone: Backbone, family: str) -> None:
    other = "DDIMScheduler" if family in FLOWS else "FlowMatchEulerDiscreteScheduler"
    with pytest.raises(TastemakerError, match="leave scheduler out"):
        set_scheduler(backbone, other)


def test_latents_that_are_not_finite_are_named(backbone: Backbone) -> None:
    broken = torch.full((1, *backbone.latent_shape(SIZE, SIZE)), float("nan"))
    with pytest.raises(TastemakerError, match="not finite"):
        backbone.vae.decode_images(broken)


def test_flows_refuse_a_learned_word(backbone: Backbone, family: str, tmp_path: Path) -> None:
    if family not in FLOWS:
        pytest.skip("a U-Net's text encoders learn words: test_personalize.py")
    with pytest.raises(TastemakerError, match="leave token out"):
        add_token(backbone, "<toy>", initializer="toy", vectors=1)
    with pytest.raises(TastemakerError, match="leave token out"):
        load_token(backbone, tmp_path)


def test_flow_is_drawn_where_it_was_trained(backbone: Backbone, family: str) -> None:
    """The density of noise levels is logit-normal around the logarithm of the shift."""
    density = backbone.timestep_density(16, 16)
    if family not in FLOWS:
        assert density is None
        return
    share = density / density.sum()
    below = share[backbone.noise_schedule.sigma <= 0.75].sum()
    # Shift 3 moves the median from 1/2 to 3/4; FLUX's is e^mu, mu = .5 - .65 * 192 / 3840.
    expected = 0.5 if family == "sd3" else 0.736
    assert float(below) == pytest.approx(expected, abs=0.002)


def test_images_of_a_lora_in_the_weights_are_those_of_one_beside_them(
    finished: RunDir, backbone: Backbone, drawing: SamplingBatch
) -> None:
    policy = load_backbone(str(finished.policy), device="cpu")
    switch_policy(policy, AdapterConfig(scale=20.0))
    beside = policy.sample(drawing, **SIDES)
    fuse_policy(policy)
    assert not has_adapter(policy.denoiser)
    within = policy.sample(drawing, **SIDES)
    assert torch.allclose(within, beside, atol=1e-4)
    assert not torch.allclose(backbone.sample(drawing, **SIDES), beside, atol=1e-3)


def test_blocks_are_those_of_a_unet(finished: RunDir, family: str) -> None:
    policy = load_backbone(str(finished.policy), device="cpu")
    if family in FLOWS:
        with pytest.raises(TastemakerError, match="leave blocks out"):
            switch_policy(policy, AdapterConfig(blocks=("up",)))
    else:
        switch_policy(policy, AdapterConfig(blocks=("up",)))
