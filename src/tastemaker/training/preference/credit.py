"""Credit schemes: how much each denoising step counts for a preference.

A preference is about the finished image x_0; training sees one noisy step of it. A scheme gives
the factor on an error at timestep t (`scale`), the share of the steps not seen in this iteration
(`correction`) and how often t is drawn (`density`). With error `e` of a branch, the loss sees
`scale_t * e + C_t` in place of `e`, so that every loss works with every scheme.

A branch is one of policy/reference on chosen/rejected, in the order of `BRANCHES`.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from tastemaker.core.lazy_torch import torch
from tastemaker.core.noise_schedule import NoiseSchedule
from tastemaker.core.registry import CREDITS
from tastemaker.training.preference.step_arrays import BRANCHES, StepArrays, at_timesteps

Variance = Annotated[
    Literal["beta", "posterior"],
    Field(description="Variance of a reverse step: the forward step's, or the posterior's."),
]
KappaMax = Annotated[
    float | None,
    Field(gt=0, description="Clip kappa at this value; null does not, as in the paper."),
]
Ema = Annotated[float, Field(gt=0, lt=1, description="Share of the old value kept at an update.")]
Buckets = Annotated[
    int,
    Field(ge=0, description="Buckets of timesteps in the arrays, at most; 0: one per timestep."),
]
Sign = Annotated[
    Literal["posterior_mode", "model_mode"],
    Field(description="Choice of x_{s-1}: the posterior's mode (-KL), or the model's own."),
]
SingleShotVariance = Annotated[
    float,
    Field(gt=0, description="Variance of the step from t to 0: C counts 2 times this beside E."),
]
KAPPA_MAX = 10.0
"""Default clip. For noise prediction on Stable Diffusion's schedule kappa passes 10 at t = 687 and
ends at 214: unclipped, the noisy end takes most of the gradient, and rounding in bf16 times kappa
is of the size of the margin. For v, x_0 and flows kappa is at most 1: there it clips nothing."""


class Credit:
    """A credit scheme; this base counts every step alike.

    Args:
        schedule: The backbone's schedule.

    Attributes:
        neutral: The loss sees the errors as they are, and there is nothing to learn from them.
    """

    neutral: ClassVar[bool] = False

    def __init__(self, schedule: NoiseSchedule) -> None:
        self.schedule = schedule

    def density(self) -> torch.Tensor | None:
        """Return how often each timestep is drawn, unnormalised, shape [T]; None: uniformly.

        Read once, before training.
        """
        return None

    def scale(self, timesteps: torch.Tensor) -> torch.Tensor:
        """Return the factor on the errors at these timesteps, shape [pairs]."""
        return torch.ones(len(timesteps), device=timesteps.device)

    def correction(self, timesteps: torch.Tensor) -> torch.Tensor:
        """Return what the steps not seen add to each branch, shape [4, pairs], without gradient."""
        return torch.zeros(len(BRANCHES), len(timesteps), device=timesteps.device)

    def update(self, errors: torch.Tensor, timesteps: torch.Tensor) -> None:
        """Learn from an optimizer step's errors, shape [4, pairs], after they were used.

        Called once per step with the pairs of all batches and processes.
        """

    def state(self) -> dict[str, torch.Tensor]:
        """Return the tensors that a checkpoint keeps."""
        return {}

    def load(self, state: dict[str, torch.Tensor]) -> None:
        """Restore `state`.

        Raises:
            ValueError: The arrays have another length.
        """


@CREDITS.register("uniform")
class Uniform(Credit):
    """Every step alike: Diffusion-DPO. `scale = 1`, `C = 0`, t uniform.

    References:
        Wallace et al., arXiv 2311.12908.
    """

    neutral = True


@CREDITS.register("discounted")
class Discounted(Credit):
    """The early, noisy steps count more: `w(t) = gamma^((T - 1 - t) / (T / steps))`.

    As a density of t (the authors' code) or as a factor on the errors with mean 1.

    Args:
        schedule: The backbone's schedule.
        gamma: Discount per sampling step, 0.9 in the authors' code.
        steps: Sampling steps that T is divided into.
        form: "density" draws t in proportion to w; "weight" multiplies the errors.

    References:
        Yang et al., arXiv 2402.08265; the form with mean 1 is ours.
    """

    def __init__(
        self,
        schedule: NoiseSchedule,
        *,
        gamma: Annotated[float, Field(gt=0, le=1, description="Discount per sampling step.")] = 0.9,
        steps: Annotated[int, Field(ge=1, description="Sampling steps of T.")] = 50,
        form: Annotated[
            Literal["density", "weight"], Field(description="Draw t by w, or weigh errors by w.")
        ] = "density",
    ) -> None:
        super().__init__(schedule)
        length = len(schedule)
        position = torch.arange(length - 1, -1, -1, dtype=torch.float64)
        self.weights = gamma ** (position / (length / steps))
        self.form = form

    def density(self) -> torch.Tensor | None:
        return self.weights if self.form == "density" else None

    def scale(self, timesteps: torch.Tensor) -> torch.Tensor:
        if self.form == "density":
            return super().scale(timesteps)
        return at_timesteps(self.weights / self.weights.mean(), timesteps)


@CREDITS.register("window")
class Window(Credit):
    """Only timesteps in `[low, high)` are trained.

    Both bounds are timesteps of Stable Diffusion's schedule: on other models, flows for instance,
    the window spans the same noise levels (`NoiseSchedule.timestep_at`).

    Args:
        schedule: The backbone's schedule.
        low: First timestep.
        high: One past the last.

    Raises:
        ValueError: The window is empty.

    References:
        arXiv 2411.14871: 200 to 700 beat all timesteps with the uniform loss.
    """

    def __init__(
        self,
        schedule: NoiseSchedule,
        *,
        low: Annotated[
            int, Field(ge=0, le=1000, description="First timestep, by Stable Diffusion's schedule.")
        ] = 200,
        high: Annotated[
            int,
            Field(ge=0, le=1000, description="One past the last timestep, by the same schedule."),
        ] = 700,
    ) -> None:
        super().__init__(schedule)
        self.low, self.high = schedule.timestep_at(low), schedule.timestep_at(high)
        if self.low >= self.high:
            raise ValueError(f"window [{low}, {high}) holds no timestep; lower low or raise high")

    def density(self) -> torch.Tensor | None:
        inside = torch.zeros(len(self.schedule), dtype=torch.float64)
        inside[self.low : self.high] = 1
        return inside


@CREDITS.register("dde_single")
class DDESingle(Credit):
    """DDE's single-shot part alone: `E = kappa_t * error`, `C = 0`.

    A deterministic step from t straight to 0 lands at xhat_0, so that the likelihood of x_0 is
    measured by `||x_0 - xhat_0||^2 = kappa_t * error`. At the start of training the gradient is
    kappa_t times the uniform one, most of it near T; the sigmoid moves it down as margins grow.

    Args:
        schedule: The backbone's schedule.
        kappa_max: Clip on kappa; None, as in the paper, for exact comparisons.

    References:
        arXiv 2411.14871, DDE-Single.
    """

    def __init__(self, schedule: NoiseSchedule, *, kappa_max: KappaMax = KAPPA_MAX) -> None:
        super().__init__(schedule)
        self.factors = schedule.kappa.clamp(max=kappa_max) if kappa_max else schedule.kappa
        if not torch.isfinite(self.factors).all():
            raise ValueError("kappa is infinite on this schedule; set kappa_max")

    def scale(self, timesteps: torch.Tensor) -> torch.Tensor:
        return at_timesteps(self.factors, timesteps)


@CREDITS.register("dde_step")
class DDEStep(Credit):
    """DDE's stepwise part alone: `E = error` (kappa = 1), C as in `dde`.

    Keeps running estimates of all steps' errors, updated after use.

    Args:
        schedule: The backbone's schedule.
        ema: Share of the old estimate kept.
        buckets: 0 for one entry per timestep.
        correction: As in `dde`.
        variance: Variance of a reverse step.
        single_shot_variance: As in `dde`.

    References:
        arXiv 2411.14871, DDE-Step.
    """

    def __init__(
        self,
        schedule: NoiseSchedule,
        *,
        ema: Ema = 0.95,
        buckets: Buckets = 50,
        correction: Sign = "posterior_mode",
        variance: Variance = "beta",
        single_shot_variance: SingleShotVariance = 1.0,
    ) -> None:
        super().__init__(schedule)
        self.single_shot_variance = single_shot_variance
        self.arrays = StepArrays(
            schedule, ema=ema, buckets=buckets, variance=variance, sign=correction
        )

    def correction(self, timesteps: torch.Tensor) -> torch.Tensor:
        return 2 * self.single_shot_variance * self.arrays.tail(timesteps)

    def update(self, errors: torch.Tensor, timesteps: torch.Tensor) -> None:
        self.arrays.update(errors, timesteps)

    def state(self) -> dict[str, torch.Tensor]:
        return {"values": self.arrays.values, "visited": self.arrays.visited}

    def load(self, state: dict[str, torch.Tensor]) -> None:
        theirs, own = state["values"].shape, self.arrays.values.shape
        if theirs != own:
            raise ValueError(
                f"the checkpoint's credit arrays have {theirs[1]} entries, this run's {own[1]};"
                " restore the buckets of the run that made it"
            )
        self.arrays.values.copy_(state["values"])
        self.arrays.visited.copy_(state["visited"])


@CREDITS.register("dde")
class DDE(DDEStep):
    """Denoised distribution estimation: `E = kappa_t error`, `C_t = 2 v sum_{s > t} c_s error_s`.

    With variance v of the single shot `-log p(x_0 | x_t) = E / (2 v)` up to constants, and the
    steps before add `sum c_s error_s`; the loss's beta takes up `1 / v` (docs/dde.md).

    From T down to t the chain is followed stepwise, from t to 0 in a single shot; one network pass
    per step, because the sums of the steps not drawn come from running estimates of earlier
    iterations (updated after use, one array per branch: shared ones would cancel). C carries no
    gradient: it shifts the sigmoid.

    Args:
        schedule: The backbone's schedule.
        ema: Share of the old estimate kept; not stated in the paper. 0.9 to 0.99.
        buckets: 0 for one entry per timestep (batches of thousands), 20 to 50 for small batches.
        single_shot_variance: v; 1 as in the Gaussian of unit variance, 0.5 for `E + sum c error`.
        correction: The paper's words fit both; its claims fit only the posterior's mode.
        variance: Variance of a reverse step.
        kappa_max: Clip on kappa; None, as in the paper, for exact comparisons.

    References:
        arXiv 2411.14871. Arrays and EMA are the paper's; four of them, the buckets and the
        interpolation are ours.
    """

    def __init__(
        self,
        schedule: NoiseSchedule,
        *,
        ema: Ema = 0.95,
        buckets: Buckets = 50,
        correction: Sign = "posterior_mode",
        variance: Variance = "beta",
        single_shot_variance: SingleShotVariance = 1.0,
        kappa_max: KappaMax = KAPPA_MAX,
    ) -> None:
        super().__init__(
            schedule,
            ema=ema,
            buckets=buckets,
            correction=correction,
            variance=variance,
            single_shot_variance=single_shot_variance,
        )
        self.single = DDESingle(schedule, kappa_max=kappa_max)

    def scale(self, timesteps: torch.Tensor) -> torch.Tensor:
        return self.single.scale(timesteps)
