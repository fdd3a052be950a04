"""FLOPs by hand, and the yardsticks' arithmetic against the trainer's."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from families import FAMILIES
from tastemaker.backbones import load_backbone
from tastemaker.profiling.flops import flops, matmul_rate
from tastemaker.profiling.training import counted_flops, random_pairs, single
from tastemaker.profiling.yardsticks import Floor, PlainStep
from tastemaker.training.preference.trainer import PreferenceTrainer
from trainings import perturb, train_config

CPU = torch.device("cpu")
Trained = Callable[..., tuple[PreferenceTrainer, PlainStep]]


def test_flops_of_a_linear_layer_and_of_attention() -> None:
    layer, inputs = torch.nn.Linear(3, 5), torch.ones(7, 3)
    once = 2 * 7 * 3 * 5
    assert flops(lambda: layer(inputs), CPU) == once
    assert flops(lambda: layer(inputs).sum().backward(), CPU) == 2 * once  # no gradient of inputs
    queries = torch.ones(2, 4, 6, 8)  # batch, heads, tokens, width
    attention = torch.nn.functional.scaled_dot_product_attention
    assert flops(lambda: attention(queries, queries, queries), CPU) == 2 * (2 * 2 * 4 * 6 * 6 * 8)


def test_matrices_are_multiplied_at_some_rate() -> None:
    assert matmul_rate(CPU, torch.float32) > 1e8


@pytest.fixture
def trained(tiny_model: Path, tmp_path: Path) -> Trained:
    """A trainer on two random pairs, and its plain step."""

    def make(model: Path = tiny_model, **options: object) -> tuple[PreferenceTrainer, PlainStep]:
        backbone = load_backbone(str(model), device="cpu")
        rows = random_pairs(2, backbone.sides)
        config = single(train_config(model, **{"batch_size": 2, **options}))
        trainer = PreferenceTrainer(backbone, rows, config, output=tmp_path)
        trainer.begin()
        return trainer, PlainStep(trainer, rows)

    return make


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_has_yardsticks(
    trained: Trained, models: dict[str, Path], family: str
) -> None:
    trainer, plain = trained(models[family])
    assert plain.step() == pytest.approx(math.log(2), abs=1e-4)
    batch = trainer.batch(0, pairs=[0, 1])
    for name, value in plain._encoded().conditioning.items():
        torch.testing.assert_close(value, batch.conditioning[name])
    assert flops(Floor(trainer).step, CPU) > 0


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"text_lora": {"r": 2}},
        {"method": "full", "reference": "frozen_copy"},
        {"method": "full", "reference": "frozen_copy", "reference_draws": 1},
    ],
    ids=["lora", "text", "full", "released"],
)
def test_plain_step_starts_at_log_two_and_trains(trained: Trained, options: dict) -> None:
    _, plain = trained(**options)
    assert plain.step() == pytest.approx(math.log(2), abs=1e-4)
    before = [each.detach().clone() for each in plain.trainer.state.weights.values()]
    plain.step()
    after = plain.trainer.state.weights.values()
    assert any(not torch.equal(old, new) for old, new in zip(before, after, strict=True))


def test_step_is_floor_and_reference(trained: Trained) -> None:
    """Losses and metrics multiply no matrices; a network without adapters is the reference."""
    trainer, plain = trained()
    perturb(trainer.backbone.denoiser)
    floor = Floor(trainer)
    batch = trainer.batch(0)
    whole = flops(lambda: trainer.train_step(batch), CPU)
    reference = flops(lambda: trainer.reference.residual(batch), CPU)
    assert whole == flops(floor.step, CPU) + reference
    encoding = flops(plain._encoded, CPU)
    assert encoding > 0
    assert flops(plain.step, CPU) == whole + encoding


def test_step_with_a_cached_reference_is_the_floor(trained: Trained) -> None:
    trainer, _ = trained(reference_draws=1)
    batch = trainer.batch(0)
    assert flops(lambda: trainer.train_step(batch), CPU) == flops(Floor(trainer).step, CPU)


def test_checkpointing_is_not_counted(trained: Trained) -> None:
    trainer, _ = trained(gradient_checkpointing=True)
    batch = trainer.batch(0)

    def step() -> None:
        trainer.train_step(batch)

    assert flops(step, CPU) > counted_flops(trainer, step)
    assert trainer.backbone.denoiser.is_gradient_checkpointing
    trainer.backbone.denoiser.disable_gradient_checkpointing()
    assert flops(step, CPU) == counted_flops(trainer, step)
