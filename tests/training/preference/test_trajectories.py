"""D3PO: trajectories of equal beginnings, their Gaussian steps, and log-ratios by hand."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributions import Normal

from folders import digests
from tastemaker.backbones import load_backbone
from tastemaker.backbones.trajectories import gaussian_steps
from tastemaker.config.datasets import PairConfig
from tastemaker.config.sections import GenerateConfig, ScoreConfig
from tastemaker.core.errors import TastemakerError
from tastemaker.evaluation.score import score
from tastemaker.losses import DenoisingErrors, d3po
from tastemaker.pairing.pair import pair
from tastemaker.sampling.generate import generate
from tastemaker.storage.candidates import Rows
from tastemaker.storage.pairs import PairSet
from tastemaker.storage.pool import Pool
from tastemaker.training.preference.train import train
from tastemaker.training.preference.trainer import PreferenceTrainer
from trainings import perturb, train_config

STEPS, SCALE = 4, 3.0


def drawn(model: Path, folder: Path, **options: Any) -> Path:
    prompts = folder.with_suffix(".txt")
    prompts.parent.mkdir(parents=True, exist_ok=True)
    prompts.write_text("a cat\na red dog\ntwo trees\n", encoding="utf-8")
    config = GenerateConfig(
        model=str(model),
        prompts=str(prompts),
        num_candidates=2,
        num_inference_steps=STEPS,
        guidance_scale=SCALE,
        negative_prompt="a tree",
        trajectories=True,
        device="cpu",
        **options,
    )
    return generate(config, folder)


@pytest.fixture(scope="module")
def trajectory_pairs(
    tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, tiny_clip: Path
) -> Path:
    folder = tmp_path_factory.mktemp("trajectories")
    pool = drawn(tiny_model, folder / "pool")
    score(ScoreConfig(scorers=({"name": "clip", "label": "tiny", "model": str(tiny_clip)},)), pool)
    rule = {"name": "best_worst", "scorer": "tiny"}
    return pair(PairConfig(rule=rule), pool, folder / "pairs")


def paths(pool: Path) -> list[torch.Tensor]:
    rows = Pool(pool).candidates(("trajectory", "trajectory_shape")).to_pylist()
    return [
        torch.frombuffer(bytearray(row["trajectory"]), dtype=torch.float16).view(
            row["trajectory_shape"]
        )
        for row in rows
    ]


def test_loss_by_hand() -> None:
    """Log-ratios 0.05 and -0.02 stay; 0.3 and -0.4 become log 1.1 and log 0.9."""
    zero = torch.zeros(2, dtype=torch.float64)
    policy = [torch.tensor(each, dtype=torch.float64) for each in ([-0.05, -0.3], [0.02, 0.4])]
    losses = d3po(DenoisingErrors(*policy, zero, zero), beta=2.0)
    margins = (0.07, math.log(1.1) - math.log(0.9))
    expected = [math.log1p(math.exp(-2 * margin)) for margin in margins]
    assert losses.tolist() == pytest.approx(expected, rel=1e-12)
    assert d3po(DenoisingErrors(zero, zero, zero, zero)).tolist() == [math.log(2)] * 2


def test_beyond_the_clip_there_is_no_gradient() -> None:
    policy = torch.tensor([0.0, 0.05, -0.2], dtype=torch.float64, requires_grad=True)
    zero = torch.zeros(3, dtype=torch.float64)
    d3po(DenoisingErrors(policy, zero, zero, zero)).sum().backward()
    assert policy.grad is not None
    assert (policy.grad > 0).tolist() == [True, True, False]


@pytest.mark.parametrize("family", ["sd1", "sd2"])
def test_steps_by_hand(family: str, models: dict[str, Path]) -> None:
    """Noise and v: x_0 and noise from the prediction, then the mean and deviation of DDIM."""
    backbone = load_backbone(str(models[family]), device="cpu")
    steps = gaussian_steps(backbone, STEPS, backbone.latent_shape(None, None))
    assert steps.timesteps.tolist() == [751, 501, 251, 1]
    levels = backbone.noise_schedule.alpha**2
    x, prediction = 0.7, -0.3
    for i, t in enumerate(steps.timesteps.tolist()):
        now, after = float(levels[t]), float(levels[max(t - 250, 0)])
        if family == "sd1":
            noise, clean = prediction, (x - math.sqrt(1 - now) * prediction) / math.sqrt(now)
        else:
            noise = math.sqrt(now) * prediction + math.sqrt(1 - now) * x
            clean = math.sqrt(now) * x - math.sqrt(1 - now) * prediction
        variance = (1 - after) / (1 - now) * (1 - now / after)
        mean = math.sqrt(after) * clean + math.sqrt(1 - after - variance) * noise
        assert float(steps.own[i] * x + steps.predicted[i] * prediction) == pytest.approx(
            mean, abs=1e-5
        )
        assert float(steps.sigma[i]) == pytest.approx(math.sqrt(variance), abs=1e-6)


def test_candidates_of_a_prompt_begin_alike(trajectory_pairs: Path) -> None:
    pool = PairSet(trajectory_pairs).pools()[0]
    found = paths(pool.folder)
    assert [tuple(each.shape[:2]) for each in found] == [(STEPS + 1, 4)] * 6
    for one, other in zip(found[::2], found[1::2], strict=True):
        assert torch.equal(one[0], other[0])
        assert not torch.equal(one[1], other[1])
    assert not torch.equal(found[0][0], found[2][0])
    latents = pool.candidates(("latents",))["latents"].to_pylist()
    for path, last in zip(found, latents, strict=True):
        kept = torch.frombuffer(bytearray(last), dtype=torch.float32)
        assert torch.equal(path[-1].float().flatten(), kept)


def test_a_step_is_a_sample_of_its_gaussian_and_batches_do_not_enter(
    tiny_model: Path, trajectory_pairs: Path, tmp_path: Path
) -> None:
    """The noise of all steps, worked out backwards, has mean 0 and deviation 1."""
    backbone = load_backbone(str(tiny_model), device="cpu")
    pool = PairSet(trajectory_pairs).pools()[0]
    steps = gaussian_steps(backbone, STEPS, backbone.latent_shape(None, None))
    given, without = (backbone.encode_prompts([text]) for text in ("a cat", "a tree"))
    path = paths(pool.folder)[0].float()
    noises = []
    for i, t in enumerate(steps.timesteps):
        with torch.no_grad():
            one, other = (
                backbone.predict(backbone.denoiser, path[i][None], t, each)[0]
                for each in (given, without)
            )
        prediction = other + SCALE * (one - other)
        mean = steps.own[i] * path[i] + steps.predicted[i] * prediction
        noises.append((path[i + 1] - mean) / steps.sigma[i])
    every = torch.stack(noises[:-1])
    assert abs(float(every.mean())) < 5 / every.numel() ** 0.5
    assert float(every.std()) == pytest.approx(1, abs=5 / (2 * every.numel()) ** 0.5)
    again = drawn(tiny_model, tmp_path / "pool", batch_size=1, shard_size=2)
    for one, other in zip(paths(pool.folder), paths(again), strict=True):
        assert torch.allclose(one.float(), other.float(), atol=0.02)


def test_errors_are_log_densities(tiny_model: Path, trajectory_pairs: Path, tmp_path: Path) -> None:
    """Log-ratios of a batch against torch's Gaussian."""
    config = train_config(tiny_model, noise="trajectory", loss={"name": "d3po"}, lora={"r": 2})
    trainer = PreferenceTrainer(str(tiny_model), trajectory_pairs, config, output=tmp_path)
    perturb(trainer.backbone.denoiser)
    batch = trainer.batch(0, pairs=[1, 2])
    assert batch.timesteps[:2].equal(batch.timesteps[2:])
    rows, pool = list(PairSet(trajectory_pairs).rows()), PairSet(trajectory_pairs).pools()[0]
    steps = gaussian_steps(trainer.backbone, STEPS, batch.noisy_latents.shape[1:])
    plain = load_backbone(str(tiny_model), device="cpu")
    found = Rows(pool)
    residual = trainer.reference.residual(batch)
    for row, side in ((0, "chosen_id"), (2, "rejected_id")):
        path = found[rows[1][side]]
        place = steps.timesteps.tolist().index(int(batch.timesteps[row]))
        latents = torch.frombuffer(bytearray(path["trajectory"]), dtype=torch.float16)
        here, there = latents.view(path["trajectory_shape"])[place : place + 2].float()
        assert torch.equal(batch.noisy_latents[row], here)
        with torch.no_grad():
            one, other = (
                plain.predict(
                    plain.denoiser, here[None], batch.timesteps[:1], plain.encode_prompts([text])
                )[0]
                for text in (rows[1]["prompt"], "a tree")
            )
        mean = steps.own[place] * here + steps.predicted[place] * (other + SCALE * (one - other))
        sigma = steps.sigma[place]
        density = Normal(mean, sigma).log_prob(there).mean()
        constant = sigma.log() + 0.5 * math.log(2 * math.pi)
        error = residual[row].square().mean()
        assert float(error) == pytest.approx(float(-density - constant), rel=1e-3)


def test_training_resumes_exactly_and_swaps(
    tiny_model: Path, trajectory_pairs: Path, tmp_path: Path
) -> None:
    options = {"noise": "trajectory", "loss": {"name": "d3po"}, "save_steps": 2, "max_steps": 4}
    whole = train(train_config(tiny_model, **options), trajectory_pairs, tmp_path / "whole")
    half = train_config(tiny_model, **{**options, "max_steps": 2})
    train(half, trajectory_pairs, tmp_path / "parts")
    parts = PreferenceTrainer(
        str(tiny_model),
        trajectory_pairs,
        train_config(tiny_model, **options),
        output=tmp_path / "parts",
    )
    parts.run()
    file = "pytorch_lora_weights.safetensors"
    assert (tmp_path / "parts" / file).read_bytes() == (whole / file).read_bytes()
    swapped = train(
        train_config(tiny_model, swapped=True, **options), trajectory_pairs, tmp_path / "swapped"
    )
    assert digests(swapped)[file] != digests(whole)[file]


def test_what_cannot_be(
    tiny_model: Path,
    pairs: Path,
    trajectory_pairs: Path,
    models: dict[str, Path],
    tmp_path: Path,
) -> None:
    def trained(on: Path, **options: Any) -> None:
        train(train_config(tiny_model, **options), on, tmp_path / "out")

    with pytest.raises(TastemakerError, match="generate trajectories=true"):
        trained(pairs, noise="trajectory")
    with pytest.raises(TastemakerError, match="set train.noise=trajectory"):
        trained(trajectory_pairs, noise="kept")
    with pytest.raises(ValueError, match="goes with credit=uniform"):
        train_config(tiny_model, noise="trajectory", credit={"name": "dde"})
    with pytest.raises(ValueError, match="trajectories are DDIM's"):
        GenerateConfig(model="nano", prompts="x", trajectories=True, scheduler="PNDMScheduler")
    with pytest.raises(TastemakerError, match="is a flow"):
        drawn(models["sd3"], tmp_path / "flow", height=32, width=32)
