"""Credit schemes against METHODS' numbers of the Stable Diffusion 1.5 schedule, and their laws."""

from __future__ import annotations

import pytest
import torch

from tastemaker.core.errors import TastemakerError
from tastemaker.core.noise_schedule import NoiseSchedule
from tastemaker.core.registry import CREDITS
from tastemaker.training.batches import draw_timestep
from tastemaker.training.preference.credit import DDE
from tastemaker.training.preference.step_arrays import BRANCHES, StepArrays

STEPS = (0, 50, 100, 200, 500, 700, 900, 999)


def stable_diffusion(prediction: str = "epsilon") -> NoiseSchedule:
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    abar = torch.cumprod(1 - betas, 0)
    return NoiseSchedule(abar.sqrt(), (1 - abar).sqrt(), prediction)


def flow(steps: int = 100) -> NoiseSchedule:
    s = torch.linspace(0, 1, steps + 1, dtype=torch.float64)[1:]
    return NoiseSchedule(1 - s, s, "flow")


def scheme(name: str, **options: object):
    return CREDITS.bind(name, options)(stable_diffusion())


def errors(pairs: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(len(BRANCHES), pairs, generator=torch.Generator().manual_seed(seed))


def test_kappa_of_the_stable_diffusion_schedule() -> None:
    expected = [8.5e-4, 0.0509, 0.118, 0.327, 2.62, 11.1, 69.7, 214]
    kappa = stable_diffusion().kappa
    assert kappa[list(STEPS)].tolist() == pytest.approx(expected, rel=5e-3)
    assert (kappa < 1).sum() == 354


def test_step_coefficients_of_the_stable_diffusion_schedule() -> None:
    expected = [0.500, 0.01138, 0.00655, 0.00416, 0.00334, 0.00401, 0.00529, 0.00610]
    c = stable_diffusion().step_coefficient()
    assert c[list(STEPS)].tolist() == pytest.approx(expected, rel=2e-3)
    tails = [float(c[step + 1 :].sum()) for step in STEPS]
    assert tails == pytest.approx([6.01, 4.18, 3.76, 3.25, 2.21, 1.485, 0.563, 0], rel=2e-3)


def test_step_coefficient_is_the_textbook_form() -> None:
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    abar = torch.cumprod(1 - betas, 0)
    c = stable_diffusion().step_coefficient()
    assert torch.allclose(c, betas / (2 * (1 - betas) * (1 - abar)), rtol=1e-9)
    posterior = betas[1:] * (1 - abar[:-1]) / (1 - abar[1:])
    other = stable_diffusion().step_coefficient("posterior")
    assert torch.allclose(other[1:], (c * betas)[1:] / posterior, rtol=1e-9)
    assert torch.isfinite(other).all()


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample", "flow"])
def test_kappa_turns_prediction_error_into_image_error(prediction: str) -> None:
    schedule = flow() if prediction == "flow" else stable_diffusion(prediction)
    generator = torch.Generator().manual_seed(0)
    x0, noise, wrong = (torch.randn(64, dtype=torch.float64, generator=generator) for _ in range(3))
    for t in (0, 10, 50, 98):
        a, s = schedule.alpha[t], schedule.sigma[t]
        x = a * x0 + s * noise
        target, recover = {
            "epsilon": (noise, lambda p, x=x, a=a, s=s: (x - s * p) / a),
            "v_prediction": (a * noise - s * x0, lambda p, x=x, a=a, s=s: a * x - s * p),
            "sample": (x0, lambda p: p),
            "flow": (noise - x0, lambda p, x=x, s=s: x - s * p),
        }[prediction]
        predicted = target + 0.1 * wrong
        assert torch.allclose(recover(target), x0)
        image_error = (recover(predicted) - x0).square().mean()
        error = (predicted - target).square().mean()
        assert torch.allclose(image_error, schedule.kappa[t] * error, rtol=1e-9)


def test_prediction_types_agree_on_the_same_image_error() -> None:
    """c times the error is a property of x_0's error, whatever the network predicts."""
    forms = [stable_diffusion(name) for name in ("epsilon", "v_prediction", "sample")]
    one, two, three = (form.step_coefficient() / form.kappa for form in forms)
    assert torch.allclose(one, two)
    assert torch.allclose(one, three)


def test_empty_arrays_add_nothing() -> None:
    t = torch.tensor(STEPS)
    for full, part in (("dde", "dde_single"), ("dde_step", "uniform")):
        assert torch.equal(scheme(full).scale(t), scheme(part).scale(t))
        assert torch.equal(scheme(full).correction(t), torch.zeros(4, len(t)))


def test_single_shot_gradient_is_kappa_times_uniform() -> None:
    t = torch.arange(1000)
    kappa = stable_diffusion().kappa.float()
    assert torch.equal(scheme("dde_single", kappa_max=None).scale(t), kappa)
    for name in ("dde", "dde_single"):
        assert torch.equal(scheme(name).scale(t), kappa.clamp(max=10))
        assert torch.equal(scheme(name, kappa_max=3.0).scale(t), kappa.clamp(max=3))


@pytest.mark.parametrize("prediction", ["v_prediction", "sample", "flow"])
def test_the_default_clip_touches_noise_prediction_alone(prediction: str) -> None:
    schedule = flow() if prediction == "flow" else stable_diffusion(prediction)
    scale = CREDITS.bind("dde_single", {})(schedule).scale(torch.arange(len(schedule)))
    assert torch.equal(scale, schedule.kappa.float())


@pytest.mark.parametrize("buckets", [0, 50])
def test_the_last_step_has_no_correction(buckets: int) -> None:
    dde = scheme("dde", buckets=buckets)
    t = torch.arange(1000)
    dde.update(errors(1000), t)
    assert torch.equal(dde.correction(torch.tensor([999])), torch.zeros(4, 1))
    assert (dde.correction(torch.tensor([0, 500])) > 0).all()


def test_the_sum_is_exclusive_and_by_hand() -> None:
    schedule = NoiseSchedule(
        torch.tensor([0.8, 0.6], dtype=torch.float64).sqrt(),
        torch.tensor([0.2, 0.4], dtype=torch.float64).sqrt(),
        "epsilon",
    )
    # beta_1 = 1 - 0.6 / 0.8 = 1/4, c_1 = (1/4) / (2 * 3/4 * 0.4) = 5/12.
    arrays = StepArrays(schedule, ema=0.5, buckets=0, variance="beta", sign="posterior_mode")
    first = torch.tensor([[0.3], [0.6], [0.9], [1.2]])
    arrays.update(first, torch.tensor([1]))
    expected = first.flatten() * 5 / 12
    assert torch.allclose(arrays.tail(torch.tensor([0])).flatten(), expected)
    arrays.update(torch.zeros(4, 1), torch.tensor([1]))
    assert torch.allclose(arrays.tail(torch.tensor([0])).flatten(), expected / 2)
    flipped = StepArrays(schedule, ema=0.5, buckets=0, variance="beta", sign="model_mode")
    flipped.update(first, torch.tensor([1]))
    assert torch.allclose(flipped.tail(torch.tensor([0])).flatten(), -expected)


@pytest.mark.parametrize(("buckets", "within"), [(0, 1e-6), (50, 0.005), (20, 0.05)])
@pytest.mark.parametrize("variance", [1.0, 0.05])
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "flow"])
def test_corrections_of_a_known_error_are_its_exact_sums(
    prediction: str, variance: float, buckets: int, within: float
) -> None:
    """Errors of the best prediction for Gaussian data, `x_0 ~ N(0, variance)`, in closed form."""
    schedule = flow(1000) if prediction == "flow" else stable_diffusion(prediction)
    image_error = variance * schedule.sigma**2 / (schedule.alpha**2 * variance + schedule.sigma**2)
    error = image_error / schedule.kappa
    dde = CREDITS.bind("dde", {"buckets": buckets})(schedule)
    t = torch.arange(1000)
    dde.update(error.expand(4, 1000), t)
    added = schedule.step_coefficient() * error
    exact = 2 * torch.tensor([float(added[step + 1 :].sum()) for step in (0, 5, 19, 100, 800)])
    found = dde.correction(torch.tensor([0, 5, 19, 100, 800]))[0]
    assert torch.allclose(found, exact, rtol=within)


def test_buckets_are_narrow_where_the_coefficient_is_large() -> None:
    sizes = torch.bincount(scheme("dde").arrays.bucket)
    assert 40 < len(sizes) <= 50
    assert sizes[0] == 1
    assert sizes.max() <= 2 * 1000 / 50


def test_variance_of_the_single_shot_weighs_the_correction() -> None:
    """`kappa e + 2 v sum c e`: twice the sum at unit variance, the sum itself at one half."""
    t = torch.arange(1000)
    for name in ("dde", "dde_step"):
        one, half = scheme(name, buckets=0), scheme(name, buckets=0, single_shot_variance=0.5)
        for each in (one, half):
            each.update(torch.ones(4, 1000), t)
        c = stable_diffusion().step_coefficient()
        assert half.correction(torch.tensor([100]))[0].item() == pytest.approx(c[101:].sum().item())
        assert torch.equal(one.correction(t), 2 * half.correction(t))
        assert torch.equal(one.scale(t), half.scale(t))


def test_shared_arrays_would_cancel() -> None:
    dde = scheme("dde")
    same = errors(1000)[:1].expand(4, 1000)
    dde.update(same, torch.arange(1000))
    c = dde.correction(torch.tensor([100]))
    assert torch.equal((c[2] - c[0]) - (c[3] - c[1]), torch.zeros(1))


def test_unvisited_steps_lie_between_their_neighbours() -> None:
    arrays = StepArrays(
        stable_diffusion(), ema=0.9, buckets=10, variance="beta", sign="posterior_mode"
    )
    arrays.update(torch.tensor([[1.0, 3.0]]).expand(4, 2), torch.tensor([150, 600]))
    filled = arrays._filled()[0]
    low, high = int(arrays.bucket[150]), int(arrays.bucket[600])
    assert high - low == 3
    assert filled.tolist() == pytest.approx(
        [1.0] * (low + 1) + [5 / 3, 7 / 3] + [3.0] * (10 - high)
    )


def test_batches_joined_from_two_processes_update_alike() -> None:
    together, halves = scheme("dde"), scheme("dde")
    t, e = torch.randint(1000, (64,), generator=torch.Generator().manual_seed(1)), errors(64)
    together.update(e, t)
    halves.update(torch.cat([e[:, ::2], e[:, 1::2]], 1), torch.cat([t[::2], t[1::2]]))
    a, b = together.arrays.values, halves.arrays.values
    assert torch.allclose(a, b, rtol=1e-12)


def test_state_round_trips_and_refuses_another_length() -> None:
    one, two = scheme("dde"), scheme("dde")
    one.update(errors(32), torch.arange(0, 640, 20))
    two.load(one.state())
    t = torch.tensor(STEPS)
    assert torch.equal(one.correction(t), two.correction(t))
    with pytest.raises(ValueError, match=r"49 entries, this run's 20"):
        scheme("dde", buckets=20).load(one.state())


def test_discounted_by_hand() -> None:
    density = scheme("discounted").density()
    assert density[999] == 1
    assert density[979].item() == pytest.approx(0.9)
    assert density[0].item() == pytest.approx(0.9 ** (999 / 20))
    weight = scheme("discounted", form="weight")
    assert weight.density() is None
    assert weight.scale(torch.arange(1000)).mean().item() == pytest.approx(1, rel=1e-6)


def test_window_draws_only_inside() -> None:
    density = scheme("window", low=300, high=302).density()
    generator = torch.Generator().manual_seed(0)
    drawn = {draw_timestep(density, 1000, generator).item() for _ in range(50)}
    assert drawn == {300, 301}
    with pytest.raises(ValueError, match=r"window \[300, 300\) holds no timestep"):
        scheme("window", low=300, high=300)
    with pytest.raises(TastemakerError, match="less than or equal to 1000"):
        scheme("window", low=300, high=1001)


def test_stated_timesteps_are_stable_diffusions_own() -> None:
    schedule = stable_diffusion()
    assert [schedule.timestep_at(t) for t in range(1001)] == list(range(1001))


def test_stated_timesteps_are_noise_levels_on_a_flow() -> None:
    """sigma / alpha is Stable Diffusion's sqrt(kappa): s = 1 / (1 + kappa^-1/2), t = 1000 s - 1."""
    level = torch.arange(1, 1001, dtype=torch.float64) / 1000
    schedule = NoiseSchedule(1 - level, level, "flow")
    kappa = {50: 0.0509, 100: 0.118, 200: 0.327, 500: 2.62, 700: 11.1, 900: 69.7}
    expected = {t: 1000 / (1 + k**-0.5) - 1 for t, k in kappa.items()}
    assert {t: schedule.timestep_at(t) for t in kappa} == pytest.approx(expected, abs=1)
    converted = [schedule.timestep_at(t) for t in range(1001)]
    assert converted == sorted(converted)
    assert [converted[t] for t in (0, 999, 1000)] == [0, 999, 1000]
    window = CREDITS.bind("window", {})(schedule)
    assert (window.low, window.high) == (converted[200], converted[700])
    assert window.density().nonzero().flatten().tolist() == list(range(window.low, window.high))


@pytest.mark.parametrize("length", [50, 1000, 2000])
def test_every_window_of_a_tenth_holds_timesteps(length: int) -> None:
    """Whatever the length, tenths follow one another without gap or overlap and cover [0, T)."""
    level = torch.arange(1, length + 1, dtype=torch.float64) / length
    schedule = NoiseSchedule(1 - level, level, "flow")
    bounds = [schedule.timestep_at(t) for t in range(0, 1001, 100)]
    assert bounds[0] == 0
    assert bounds[-1] == length
    assert bounds == sorted(set(bounds))


def test_infinite_kappa_is_refused() -> None:
    schedule = NoiseSchedule(torch.tensor([0.5, 0.0]), torch.tensor([0.8, 1.0]), "epsilon")
    with pytest.raises(ValueError, match="kappa_max"):
        CREDITS.bind("dde_single", {"kappa_max": None})(schedule)
    assert CREDITS.bind("dde_single", {})(schedule).scale(torch.tensor([1])).item() == 10
    for name in ("dde", "dde_step"):
        with pytest.raises(ValueError, match="pure noise"):
            CREDITS.bind(name, {"buckets": 0})(schedule)


@pytest.mark.parametrize("name", CREDITS.names())
@pytest.mark.parametrize("schedule", [stable_diffusion(), flow()], ids=["sd", "flow"])
def test_every_scheme_keeps_its_laws(name: str, schedule: NoiseSchedule) -> None:
    options = {"low": 20, "high": 70} if name == "window" else {}
    credit = CREDITS.bind(name, options)(schedule)
    t = torch.tensor([0, 20, 69, len(schedule) - 1])
    for _ in range(2):
        assert credit.scale(t).shape == (4,)
        assert (credit.scale(t) > 0).all()
        assert credit.correction(t).shape == (4, 4)
        assert torch.isfinite(credit.correction(t)).all()
        assert not credit.correction(t).requires_grad
        density = credit.density()
        assert density is None or (density.shape == (len(schedule),) and density.sum() > 0)
        credit.update(errors(4).requires_grad_(), t)


def test_dde_is_registered_with_the_papers_parts() -> None:
    assert {"uniform", "discounted", "window", "dde", "dde_single", "dde_step"} <= set(
        CREDITS.names()
    )
    assert isinstance(scheme("dde"), DDE)
