"""AlignProp: the sampler and the scorer with gradient, the loop on top, and a whole run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file

from launching import launch
from tastemaker.backbones import Backbone, SamplingBatch, load_backbone, stack
from tastemaker.backbones.gradient_sampling import sample_with_gradient, unroll
from tastemaker.backbones.lora.adapters import add_lora, trainable
from tastemaker.config.loading import load
from tastemaker.config.training import RewardTrainConfig
from tastemaker.core.errors import TastemakerError
from tastemaker.core.plugins import load_plugins
from tastemaker.core.registry import SCORERS
from tastemaker.recipes.run import run
from tastemaker.reporting.run_contents import read
from tastemaker.scorers.clip import ClipScorer
from tastemaker.storage.images import to_pixels
from tastemaker.training.reward.train import train_reward

SEEDS = (11, 12, 13)

REDNESS = '''
from collections.abc import Sequence
import torch
from PIL import Image
from tastemaker.storage.images import to_pixels
from tastemaker.core.registry import SCORERS

@SCORERS.register("redness")
class Redness:
    """Mean of the red channel, less that of the others."""
    def to(self, device, dtype): return self
    def __call__(self, images, prompts):
        return self.score_pixels(to_pixels(images) / 2 + 0.5, prompts)
    def score_pixels(self, pixels, prompts):
        red, green, blue = pixels.mean((2, 3)).unbind(1)
        return red - (green + blue) / 2

@SCORERS.register("detached")
class Detached(Redness):
    """A scorer that loses its graph."""
    def score_pixels(self, pixels, prompts): return super().score_pixels(pixels, prompts).detach()

@SCORERS.register("undefined")
class Undefined(Redness):
    """A scorer that is no number."""
    def score_pixels(self, pixels, prompts):
        return super().score_pixels(pixels, prompts) * float("nan")

@SCORERS.register("made_redness")
def made_redness() -> Redness:
    """A factory says by its return type what it makes."""
    return Redness()

@SCORERS.register("pictures_only")
class PicturesOnly:
    """A scorer without gradient."""
    def to(self, device, dtype): return self
    def __call__(self, images, prompts): return torch.zeros(len(images))
'''


@pytest.fixture(scope="module", autouse=True)
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's file with toy scorers, known to the table from here on."""
    file = tmp_path_factory.mktemp("plugin") / "my_scorers.py"
    file.write_text(REDNESS, encoding="utf-8")
    load_plugins((str(file),))
    return file


@pytest.fixture
def backbone(tiny_model: Path) -> Backbone:
    return load_backbone(str(tiny_model), device="cpu", scheduler="DDIMScheduler")


def drawing(backbone: Backbone, *, steps: int = 4, guidance: float = 3.0) -> SamplingBatch:
    """Three prompts, against the empty one."""
    given = backbone.encode_prompts([f"prompt {i}" for i in range(len(SEEDS))])
    negative = stack([backbone.encode_prompts([""])] * len(SEEDS))
    return SamplingBatch(given, negative, SEEDS, num_inference_steps=steps, guidance_scale=guidance)


def draw(
    backbone: Backbone, keep: int, *, steps: int = 4, guidance: float = 3.0, **options: Any
) -> torch.Tensor:
    """Final latents with a graph."""
    given = drawing(backbone, steps=steps, guidance=guidance)
    settings = {"checkpointing": False, **options}
    return sample_with_gradient(backbone, backbone.denoiser, given, keep=keep, **settings)


def perturbed_lora(backbone: Backbone) -> list[torch.nn.Parameter]:
    """Put a LoRA on that is not zero any more; return its parameters."""
    add_lora(backbone.denoiser, RewardTrainConfig.model_fields["lora"].default, seed=0)
    weights = list(trainable(backbone.denoiser).values())
    generator = torch.Generator().manual_seed(3)
    for weight in weights:
        weight.data += 0.05 * torch.randn(weight.shape, generator=generator)
    return weights


def gradients(latents: torch.Tensor, weights: list[torch.nn.Parameter]) -> tuple[torch.Tensor, ...]:
    return torch.autograd.grad(latents.square().mean(), weights)


class TestSampler:
    """The sampler with gradient draws what the pipeline draws."""

    @pytest.mark.parametrize("guidance_scale", [1.0, 3.0])
    @pytest.mark.parametrize("keep", [0, 2, 5])
    def test_latents_are_those_of_the_pipeline(
        self, backbone: Backbone, guidance_scale: float, keep: int
    ) -> None:
        theirs = backbone.sample(drawing(backbone, steps=5, guidance=guidance_scale))
        ours = draw(backbone, keep, steps=5, guidance=guidance_scale)
        assert torch.allclose(ours, theirs, atol=1e-5)
        assert ours.requires_grad == (keep > 0)

    def test_size_is_taken(self, backbone: Backbone) -> None:
        theirs = backbone.sample(drawing(backbone, steps=2), height=48, width=16)
        ours = draw(backbone, 1, steps=2, height=48, width=16)
        assert ours.shape == theirs.shape
        assert torch.allclose(ours, theirs, atol=1e-5)

    def test_the_models_own_sampler_does_not_enter(self, tiny_model: Path) -> None:
        euler = load_backbone(str(tiny_model), device="cpu", scheduler="EulerDiscreteScheduler")
        ddim = load_backbone(str(tiny_model), device="cpu")
        assert torch.equal(draw(euler, 0), draw(ddim, 0))

    def test_pixels_are_those_of_the_pictures(self, backbone: Backbone) -> None:
        latents = draw(backbone, 1)
        pictures = to_pixels(backbone.vae.decode_images(latents.detach())) / 2 + 0.5
        pixels = backbone.vae.decode_pixels(latents)
        assert pixels.min() >= 0
        assert pixels.max() <= 1
        assert (pixels - pictures).abs().max() <= 0.5 / 255 + 1e-5
        pixels.sum().backward()
        assert not any(p.requires_grad for p in backbone.pipeline.vae.parameters())

    def test_clipped_pixels_have_no_gradient(self, backbone: Backbone) -> None:
        latents = (100 * draw(backbone, 0)).requires_grad_()
        pixels = backbone.vae.decode_pixels(latents)
        beyond = (pixels == 0) | (pixels == 1)
        assert beyond.any()
        (gradient,) = torch.autograd.grad(pixels[beyond].sum(), latents)
        assert not gradient.any()


class TestTruncation:
    """Gradient flows through the last steps alone, and checkpointing changes nothing."""

    def test_by_hand(self) -> None:
        # x <- w x + t, from x = 1 through t = 3, 2, 1 at w = 2: 5, 12, 25.
        # dx/dw with all steps: 1, then 5 + 2 * 1 = 7, then 12 + 2 * 7 = 26; the last two alone,
        # with x = 5 fixed: 5, then 12 + 2 * 5 = 22; the last alone, with x = 12 fixed: 12.
        weight = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
        times = torch.tensor([3.0, 2.0, 1.0], dtype=torch.float64)
        noise = torch.tensor(1.0, dtype=torch.float64)
        for keep, slope in {1: 12, 2: 22, 3: 26, 9: 26}.items():
            for checkpointing in (False, True):
                end = unroll(
                    lambda x, t: weight * x + t,
                    noise,
                    times,
                    keep=keep,
                    checkpointing=checkpointing,
                )
                assert end.item() == 25
                assert torch.autograd.grad(end, weight)[0].item() == slope

    def test_a_parameter_of_early_steps_has_no_gradient(self) -> None:
        early, late = (torch.tensor(2.0, requires_grad=True) for _ in range(2))
        times = torch.tensor([3.0, 2.0, 1.0])

        def end(keep: int) -> torch.Tensor:
            return unroll(
                lambda x, t: (early if t > 1 else late) * x,
                torch.ones(()),
                times,
                keep=keep,
                checkpointing=False,
            )

        (value,) = torch.autograd.grad(end(1), late)
        assert value.item() == 4
        assert torch.autograd.grad(end(1), early, allow_unused=True) == (None,)
        assert torch.autograd.grad(end(2), early)[0].item() == 4
        assert torch.autograd.grad(end(3), early)[0].item() == 8

    @pytest.mark.parametrize("keep", [1, 2])
    def test_on_a_model_it_is_the_detached_computation(self, backbone: Backbone, keep: int) -> None:
        weights = perturbed_lora(backbone)
        ours = gradients(draw(backbone, keep), weights)
        scheduler = backbone.pipeline.scheduler
        scheduler.set_timesteps(4)
        asked = drawing(backbone)
        latents = draw_noise()
        for number, timestep in enumerate(scheduler.timesteps):
            if number == 4 - keep:
                latents = latents.detach()
            without, with_prompt = (
                backbone.predict(backbone.denoiser, latents, timestep, conditioning)
                for conditioning in (asked.negative, asked.conditioning)
            )
            prediction = without + 3.0 * (with_prompt - without)
            latents = scheduler.step(prediction, timestep, latents).prev_sample
        theirs = gradients(latents, weights)
        for one, other in zip(ours, theirs, strict=True):
            assert torch.allclose(one, other, rtol=1e-3, atol=1e-6)
        whole = gradients(draw(backbone, 4), weights)
        assert not all(torch.allclose(a, b, rtol=1e-2) for a, b in zip(ours, whole, strict=True))

    def test_checkpointing_changes_nothing(self, backbone: Backbone) -> None:
        weights = perturbed_lora(backbone)
        kept = gradients(draw(backbone, 3), weights)
        again = gradients(draw(backbone, 3, checkpointing=True), weights)
        assert all(torch.equal(one, other) for one, other in zip(kept, again, strict=True))


def draw_noise() -> torch.Tensor:
    """The noise that the seeds stand for."""
    shape = (1, 4, 16, 16)
    return torch.cat(
        [torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in SEEDS]
    )


def picture(width: int, height: int) -> Image.Image:
    """A smooth picture whose bytes are exact in float."""
    x, y = torch.arange(width) / width, torch.arange(height)[:, None] / height
    channels = [(x + y) / 2, (1 + torch.sin(6 * x) * torch.cos(5 * y)) / 2, (x - y).abs()]
    array = (torch.stack([c.expand(height, width) for c in channels], -1) * 255).round()
    return Image.fromarray(array.byte().numpy())


class TestClipPixels:
    """The path with gradient gives the scores of the pictures."""

    @pytest.mark.parametrize(
        ("size", "tolerance"),
        [((32, 32), 1e-4), ((64, 64), 0.02), ((48, 80), 0.02), ((80, 48), 0.02), ((20, 24), 0.02)],
        ids=str,
    )
    def test_agrees_with_the_pictures(
        self, tiny_clip: Path, size: tuple[int, int], tolerance: float
    ) -> None:
        scorer = ClipScorer(model=str(tiny_clip))
        images = [picture(*size), picture(*size).transpose(Image.Transpose.ROTATE_180)]
        prompts = ["a cat", "a dog"]
        pixels = to_pixels(images) / 2 + 0.5
        ours = scorer.score_pixels(pixels, prompts)
        theirs = scorer(images, prompts)
        assert ours.shape == (2,)
        assert torch.allclose(ours, theirs, atol=tolerance)
        assert (theirs[0] - theirs[1]).abs() > 5 * tolerance

    def test_gradient_reaches_every_pixel_of_the_crop(self, tiny_clip: Path) -> None:
        scorer = ClipScorer(model=str(tiny_clip))
        pixels = (to_pixels([picture(64, 96)]) / 2 + 0.5).requires_grad_()
        scorer.score_pixels(pixels, ["a cat"]).sum().backward()
        reached = pixels.grad.abs().sum((0, 1)) > 0
        assert reached[20:76].all()
        assert not reached[:12].any()
        assert all(p.grad is None for p in scorer.network.parameters())

    def test_gradient_is_that_of_a_small_change(self, tiny_clip: Path) -> None:
        scorer = ClipScorer(model=str(tiny_clip)).to(torch.device("cpu"), torch.float64)
        pixels = (0.2 + 0.3 * (to_pixels([picture(32, 32)]) + 1)).double().requires_grad_()
        (gradient,) = torch.autograd.grad(scorer.score_pixels(pixels, ["a cat"]).sum(), pixels)
        direction = gradient / gradient.norm()
        with torch.no_grad():
            up, down = (
                scorer.score_pixels(pixels + step * direction, ["a cat"]) for step in (0.05, -0.05)
            )
        assert ((up - down) / 0.1).item() == pytest.approx(gradient.norm().item(), rel=0.02)


def reward_config(model: Path, folder: Path, **options: Any) -> RewardTrainConfig:
    """A short training on the CPU."""
    file = folder / "prompts.txt"
    file.write_text("a cat\na dog\na bird\n", encoding="utf-8")
    defaults: dict[str, Any] = {
        "scorer": "redness",
        "max_steps": 4,
        "batch_size": 4,
        "gradient_accumulation_steps": 1,
        "num_inference_steps": 3,
        "guidance_scale": 2.0,
        "keep": 2,
        "device": "cpu",
    }
    return RewardTrainConfig(model=str(model), prompts=str(file), **{**defaults, **options})


def rows(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").open()]


def lora(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "pytorch_lora_weights.safetensors")


class TestTraining:
    """The loop: the reward rises, and how it is computed does not matter."""

    def test_reward_rises(self, tiny_model: Path, tmp_path: Path) -> None:
        config = reward_config(tiny_model, tmp_path, max_steps=20, learning_rate=1e-2)
        out = train_reward(config, tmp_path / "out")
        rewards = [row["reward"] for row in rows(out)]
        assert sum(rewards[-5:]) / 5 > sum(rewards[:5]) / 5 + 0.02
        assert all(row["loss"] == pytest.approx(-0.01 * row["reward"]) for row in rows(out))
        base, policy = load_backbone(str(tiny_model)), load_backbone(str(out))
        with torch.no_grad():
            before, after = (
                SCORERS.bind("redness", {})()
                .score_pixels(each.vae.decode_pixels(draw(each, 0, steps=3, guidance=2.0)), [])
                .mean()
                for each in (base, policy)
            )
        assert after > before + 0.02

    @pytest.mark.parametrize(
        "options",
        [
            {},
            {"gradient_checkpointing": False, "random_keep": False},
            {"lora": {"r": 2, "dropout": 0.5}, "lr_scheduler": "cosine", "warmup_steps": 1},
        ],
        ids=["defaults", "plain", "dropout"],
    )
    def test_resumed_is_undisturbed(
        self, tiny_model: Path, tmp_path: Path, options: dict[str, Any]
    ) -> None:
        config = reward_config(tiny_model, tmp_path, save_steps=2, **options)
        whole = train_reward(config, tmp_path / "whole")
        again = shutil.copytree(whole, tmp_path / "again")
        (again / "done.json").unlink()
        (again / "pytorch_lora_weights.safetensors").unlink()
        (again / "checkpoints" / "step-000004.safetensors").unlink()
        train_reward(config, again)
        for name in ("metrics.jsonl", "pytorch_lora_weights.safetensors", "done.json"):
            assert (again / name).read_bytes() == (whole / name).read_bytes()

    def test_accumulated_batches_equal_one(self, tiny_model: Path, tmp_path: Path) -> None:
        for size, parts in ((4, 1), (2, 2)):
            # With a large epsilon AdamW's step is proportional to the gradient, not its sign.
            config = reward_config(
                tiny_model,
                tmp_path,
                batch_size=size,
                gradient_accumulation_steps=parts,
                adam_epsilon=10.0,
                learning_rate=100.0,
                weight_decay=0.0,
            )
            train_reward(config, tmp_path / str(size))
        for one, two in zip(rows(tmp_path / "4"), rows(tmp_path / "2"), strict=True):
            assert two == pytest.approx(one, rel=1e-3, abs=1e-5)
        one, two = lora(tmp_path / "4"), lora(tmp_path / "2")
        assert all(torch.allclose(one[key], two[key], atol=1e-4) for key in one)

    @pytest.mark.slow
    def test_number_of_kept_steps_is_drawn(self, tiny_model: Path, tmp_path: Path) -> None:
        first = {
            (keep, random): rows(
                train_reward(
                    reward_config(tiny_model, tmp_path, keep=keep, random_keep=random),
                    tmp_path / f"{keep}-{random}",
                )
            )
            for keep, random in ((1, True), (1, False), (3, True), (3, False))
        }
        assert first[1, True] == first[1, False]
        # The first step's images are the same; how much gradient is kept shows in its norm.
        assert first[3, False][0]["reward"] == first[1, False][0]["reward"]
        assert first[3, False][0]["grad_norm"] != first[1, False][0]["grad_norm"]
        assert first[3, True] != first[3, False]

    def test_half_precision_has_the_same_gradient(self, tiny_model: Path, tmp_path: Path) -> None:
        first = {
            precision: rows(
                train_reward(
                    reward_config(tiny_model, tmp_path, dtype=precision, max_steps=1),
                    tmp_path / precision,
                )
            )[0]
            for precision in ("fp32", "bf16")
        }
        assert first["bf16"]["grad_norm"] == pytest.approx(first["fp32"]["grad_norm"], rel=0.2)

    def test_nan_score_names_the_last_checkpoint(self, tiny_model: Path, tmp_path: Path) -> None:
        config = reward_config(tiny_model, tmp_path, scorer="undefined")
        with pytest.raises(
            TastemakerError, match=r"step 1: the loss is nan.*'undefined'.*no checkpoint"
        ):
            train_reward(config, tmp_path / "out")
        assert not (tmp_path / "out" / "done.json").exists()

    def test_training_that_explodes_names_the_last_checkpoint(
        self, tiny_model: Path, tmp_path: Path
    ) -> None:
        config = reward_config(tiny_model, tmp_path, max_steps=50, learning_rate=1e30, save_steps=1)
        with pytest.raises(TastemakerError, match=r"last good checkpoint is .*step-0000"):
            train_reward(config, tmp_path / "out")
        assert not (tmp_path / "out" / "done.json").exists()


def train_as_said(options: str, output: Path) -> None:
    train_reward(RewardTrainConfig(**json.loads(options)), output)


@pytest.mark.timeout(300)
@pytest.mark.slow
def test_two_processes_train_as_one(tiny_model: Path, tiny_clip: Path, tmp_path: Path) -> None:
    scorer = {"name": "clip", "model": str(tiny_clip)}
    options = {"scorer": scorer, "max_steps": 3, "adam_epsilon": 1e-2}
    alone = reward_config(tiny_model, tmp_path, batch_size=4, **options)
    train_reward(alone, tmp_path / "1")
    halves = reward_config(tiny_model, tmp_path, batch_size=2, **options)
    words = (halves.model_dump_json(), tmp_path / "2")
    ended = launch(train_as_said, *words, folder=tmp_path)
    assert ended.code == 0, ended.err[-3000:]
    for one, two in zip(rows(tmp_path / "1"), rows(tmp_path / "2"), strict=True):
        assert two == pytest.approx(one, rel=1e-3, abs=1e-5)
    one, two = lora(tmp_path / "1"), lora(tmp_path / "2")
    assert all(torch.allclose(one[key], two[key], atol=1e-4) for key in one)


class TestRefusals:
    """What cannot be trained on is refused, where possible before anything is loaded."""

    def test_scorer_without_gradient_is_refused_with_those_that_have_one(
        self, tmp_path: Path
    ) -> None:
        with pytest.raises(ValueError, match="'pictures_only' is not differentiable") as refusal:
            reward_config(tmp_path / "no-such-model", tmp_path, scorer="pictures_only")
        message = str(refusal.value)
        assert "score_pixels" in message
        named = message.split("Those that have: ")[1].split(" [")[0]
        for name in ("clip", "made_redness", "nano_preference", "redness"):
            assert name in named
        assert "pictures_only" not in named

    def test_on_the_command_line_too(self, plugin: Path) -> None:
        overrides = (f"plugins=[{plugin}]", "train.scorer=pictures_only")
        with pytest.raises(TastemakerError, match=r"train\.scorer: .*not differentiable"):
            load("align_prop-nano", overrides)

    def test_scorer_that_loses_its_graph(self, tiny_model: Path, tmp_path: Path) -> None:
        config = reward_config(tiny_model, tmp_path, scorer="detached")
        with pytest.raises(TastemakerError, match="with its graph"):
            train_reward(config, tmp_path / "out")

    def test_more_kept_steps_than_there_are(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="keep=9 exceeds num_inference_steps=3"):
            reward_config(tmp_path, tmp_path, keep=9)

    def test_fp16_needs_a_gpu(self, tiny_model: Path, tmp_path: Path) -> None:
        with pytest.raises(TastemakerError, match="fp16"):
            train_reward(reward_config(tiny_model, tmp_path, dtype="fp16"), tmp_path / "out")


def test_whole_run_gives_a_page_without_pairs(
    tiny_model: Path, tiny_clip: Path, tmp_path: Path
) -> None:
    (tmp_path / "prompts.txt").write_text("a cat\na dog\n", encoding="utf-8")
    scorer = {"name": "clip", "label": "tiny", "model": str(tiny_clip)}
    sampling = {"num_inference_steps": 2, "guidance_scale": 2.0, "batch_size": 2}
    data = {
        "recipe": "align_prop",
        "name": "small",
        "output": str(tmp_path / "runs"),
        "model": str(tiny_model),
        "seed": 5,
        "device": "cpu",
        "train": {
            "prompts": str(tmp_path / "prompts.txt"),
            "scorer": scorer,
            "max_steps": 3,
            "gradient_accumulation_steps": 1,
            "keep": 1,
            **sampling,
        },
        "evaluate": {"prompts": str(tmp_path / "prompts.txt"), "scorers": [scorer], **sampling},
    }
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(data), encoding="utf-8")
    config = load(str(tmp_path / "small.yaml"))
    assert config.train.seed == 5
    folder = run(config)
    page = folder.report_html.read_text(encoding="utf-8")
    assert '<section id="training">' in page
    assert "<h3>Reward</h3>" in page
    assert "<h3>Loss</h3>" not in page
    assert '<section id="pairs">' not in page
    assert read(folder).training_scorers == ["tiny"]
    assert "Training learned what is better from tiny" in page
    before = (folder.policy / "metrics.jsonl").stat().st_mtime_ns
    run(config)
    assert (folder.policy / "metrics.jsonl").stat().st_mtime_ns == before
