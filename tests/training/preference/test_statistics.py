"""Statistics matching: the closed form against the long way round, and what leaves it at zero."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler

from tastemaker.config.preference import StatisticsConfig
from tastemaker.core.noise_schedule import NoiseSchedule
from tastemaker.training.preference.statistics import estimate_of, statistics_term

PREDICTIONS = ("epsilon", "v_prediction", "sample")


def ddpm(prediction: str, **options: Any) -> DDPMScheduler:
    """Stable Diffusion's schedule, in float64."""
    scheduler = DDPMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        prediction_type=prediction,
        **options,
    )
    scheduler.alphas_cumprod = scheduler.alphas_cumprod.double()
    scheduler.alphas, scheduler.betas = scheduler.alphas.double(), scheduler.betas.double()
    return scheduler


def schedule(prediction: str) -> NoiseSchedule:
    abar = ddpm(prediction).alphas_cumprod
    return NoiseSchedule(abar.sqrt(), (1 - abar).sqrt(), prediction)  # type: ignore[arg-type]


def draw(seed: int, pairs: int = 3) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Noisy latents and two predictions, float64."""
    generator = torch.Generator().manual_seed(seed)
    shape = (pairs, 4, 5, 6)
    noisy, policy, target = (
        torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(3)
    )
    return noisy, policy, target


def term(config: StatisticsConfig, prediction: str, t: int, *tensors: torch.Tensor) -> torch.Tensor:
    timesteps = torch.full((len(tensors[0]),), t)
    estimate = estimate_of(config, schedule(prediction), torch.device("cpu"))
    return statistics_term(config, estimate, tensors[0], timesteps, *tensors[1:])


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("t", [1, 40, 500, 999])
def test_closed_form_is_the_two_pass_computation(prediction: str, t: int) -> None:
    """Denoise one step with each prediction by diffusers' own sampler, then compare the means."""
    noisy, policy, target = draw(0)
    scheduler = ddpm(prediction)
    steps = [
        scheduler.step(each, t, noisy, generator=torch.Generator().manual_seed(1)).prev_sample
        for each in (policy, target)
    ]
    by_hand = (steps[0].mean((2, 3)) - steps[1].mean((2, 3))).square().sum(1)
    ours = term(StatisticsConfig(), prediction, t, noisy, policy, target)
    assert torch.allclose(ours, by_hand, rtol=1e-5, atol=1e-15)


def test_the_factor_is_the_ddpm_step() -> None:
    """`b_t = beta_t / (sqrt(alpha_t) sqrt(1 - abar_t))` for noise prediction."""
    scheduler = ddpm("epsilon")
    by_hand = scheduler.betas / (scheduler.alphas.sqrt() * (1 - scheduler.alphas_cumprod).sqrt())
    slope = schedule("epsilon").step_estimate().slope
    # The schedule keeps abar in float32: a step, a ratio of neighbours, has fewer digits.
    assert torch.allclose(slope, -by_hand, rtol=1e-3)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_moments_of_the_x0_estimate(prediction: str) -> None:
    """The other published form, from the estimate of x_0 that diffusers' DDIM makes."""
    noisy, policy, target = draw(2)
    scheduler = DDIMScheduler.from_config(ddpm(prediction).config)
    scheduler.alphas_cumprod = scheduler.alphas_cumprod.double()
    scheduler.set_timesteps(1000)
    guesses = [scheduler.step(each, 300, noisy).pred_original_sample for each in (policy, target)]
    by_hand = sum(
        (getattr(guesses[0], name)((2, 3)) - getattr(guesses[1], name)((2, 3))).abs().sum(1)
        for name in ("mean", "std")
    )
    config = StatisticsConfig(estimate="x0", moments=("mean", "std"), norm="absolute")
    assert torch.allclose(term(config, prediction, 300, noisy, policy, target), by_hand, rtol=1e-5)


def test_flow_estimates_give_the_data_back() -> None:
    s = torch.linspace(0.001, 0.999, 1000, dtype=torch.float64)
    flow = NoiseSchedule(1 - s, s, "flow")
    x_0, noise, _ = draw(3)
    t = 600
    noisy = (1 - s[t]) * x_0 + s[t] * noise
    linear = flow.x0_estimate()
    assert torch.allclose(linear.offset[t] * noisy + linear.slope[t] * (noise - x_0), x_0)


@pytest.mark.parametrize("estimate", ["step", "x0"])
@pytest.mark.parametrize("moments", [("mean",), ("std",), ("mean", "std")])
class TestLaws:
    def config(self, estimate: str, moments: tuple[str, ...]) -> StatisticsConfig:
        return StatisticsConfig(estimate=estimate, moments=moments)  # type: ignore[arg-type]

    def test_zero_at_the_start(self, estimate: str, moments: tuple[str, ...]) -> None:
        noisy, policy, _ = draw(4)
        value = term(self.config(estimate, moments), "epsilon", 400, noisy, policy, policy)
        assert torch.equal(value, torch.zeros(3, dtype=torch.float64))

    def test_moving_pixels_about_changes_nothing(
        self, estimate: str, moments: tuple[str, ...]
    ) -> None:
        noisy, policy, target = draw(5)
        order = torch.randperm(30, generator=torch.Generator().manual_seed(0))

        def moved(values: torch.Tensor) -> torch.Tensor:
            return values.flatten(2)[:, :, order].reshape(values.shape)

        config = self.config(estimate, moments)
        here = term(config, "epsilon", 400, noisy, policy, target)
        there = term(config, "epsilon", 400, *map(moved, (noisy, policy, target)))
        assert torch.allclose(here, there)

    def test_falls_along_its_gradient(self, estimate: str, moments: tuple[str, ...]) -> None:
        noisy, policy, target = draw(6)
        policy.requires_grad_(True)
        config = self.config(estimate, moments)
        value = term(config, "v_prediction", 700, noisy, policy, target)
        (gradient,) = torch.autograd.grad(value.sum(), policy)
        lower = term(
            config, "v_prediction", 700, noisy, policy - 1e-3 * gradient / gradient.norm(), target
        )
        assert (lower.sum() < value.sum()).item()


def test_weights_and_lists_are_checked() -> None:
    with pytest.raises(ValueError, match="weight"):
        StatisticsConfig(weight=-1)
    with pytest.raises(ValueError, match="moments"):
        StatisticsConfig(moments=())
