"""Noise schedules by their formulas, which is what credit schemes need of a model.

Papers state timesteps of Stable Diffusion 1.5's schedule (scaled-linear betas from 8.5e-4 to .012,
1000 steps), and so do all options. `NoiseSchedule.timestep_at` converts them for every other model.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Literal

from tastemaker.core.lazy_torch import torch


@dataclass(frozen=True)
class Linear:
    """An estimate that is linear in noisy latents and prediction, one pair of factors per timestep.

    Args:
        offset: Factor on the noisy latents, shape [T].
        slope: Factor on the prediction, shape [T].
    """

    offset: torch.Tensor
    slope: torch.Tensor


STATED_LENGTH = 1000
"""Timesteps of the schedule that options are stated in, Stable Diffusion 1.5's."""


@dataclass(frozen=True)
class NoiseSchedule:
    """Noise schedule `x_t = alpha_t x_0 + sigma_t noise` and the kind of prediction.

    Args:
        alpha: Shape [T], float64; `sqrt(abar_t)`, or `1 - s` of a rectified flow.
        sigma: Shape [T], float64; `sqrt(1 - abar_t)`, or `s`.
        prediction: Quantity that the network predicts.
    """

    alpha: torch.Tensor
    sigma: torch.Tensor
    prediction: Literal["epsilon", "v_prediction", "sample", "flow"]

    def __len__(self) -> int:
        return len(self.alpha)

    @property
    def kappa(self) -> torch.Tensor:
        """Factor from the squared error of the prediction to that of x_0, shape [T].

        `||x_0 - xhat_0||^2 = kappa_t ||target - prediction||^2`: `sigma^2 / alpha^2` for noise (for
        Stable Diffusion `(1 - abar) / abar`), `sigma^2` for v and for a flow's velocity, 1 for x_0.

        References:
            DDE, arXiv 2411.14871, section on single-shot estimation. The v and flow forms follow
            from the same substitution; the paper does not state them.
        """
        if self.prediction == "sample":
            return torch.ones_like(self.sigma)
        if self.prediction == "epsilon":
            return self.sigma**2 / self.alpha**2
        return self.sigma**2

    @property
    def log_snr(self) -> torch.Tensor:
        """Logarithm of the signal-to-noise ratio, `log(alpha^2 / sigma^2)`, shape [T], falling."""
        return 2 * (self.alpha.log() - self.sigma.log())

    def timestep_at(self, stated: int) -> int:
        """Convert a timestep of Stable Diffusion's schedule to this one's of the same noise level.

        The timestep whose `log(alpha^2 / sigma^2)` is nearest to Stable Diffusion's at `stated`:
        the same number for Stable Diffusion 1.x, 2.x and SDXL; for a rectified flow of 1000 steps
        `200, 500, 700, 900` become `363, 617, 768, 892`. First and last timestep stay first and
        last, although a flow's go beyond Stable Diffusion's in either direction.

        Args:
            stated: In [0, 1000]; 1000, the open end of a range, becomes T.

        Returns:
            A timestep in [0, T), or T for 1000.

        Raises:
            ValueError: It is outside.

        References:
            The papers know Stable Diffusion alone; equal noise levels are our reading for others.
        """
        if not 0 <= stated <= STATED_LENGTH:
            raise ValueError(f"timestep {stated} does not lie in [0, {STATED_LENGTH}]")
        if stated == 0:
            return 0
        if stated >= STATED_LENGTH - 1:
            return len(self) - STATED_LENGTH + stated
        distance = self.log_snr - _stable_diffusion_log_snr()[stated]
        return int(distance.abs().argmin())

    def step_coefficient(self, variance: str = "beta") -> torch.Tensor:
        """Coefficient c of a reverse step's log-ratio, shape [T].

        At the posterior's mode `log p_theta(x_{s-1}|x_s) / q(x_{s-1}|x_s,x_0) = -c_s error_s`. The
        posterior's mean contains x_0 with the factor `alpha_{s-1} v_s / sigma_s^2`, where
        `v_s = sigma_s^2 - (alpha_s / alpha_{s-1})^2 sigma_{s-1}^2`; so, per error of x_0,
        `c_s = alpha_{s-1}^2 v_s / (2 sigma_s^4)` with the forward variance `v_s`, and
        `alpha_{s-1}^2 v_s / (2 sigma_s^2 sigma_{s-1}^2)` with the posterior's. For noise prediction
        on a DDPM schedule the first is `beta_s / (2 alpha_s (1 - abar_s))`.

        Args:
            variance: "beta" (forward) or "posterior", whose last step is clamped to the one before.

        Returns:
            Coefficients on the squared error of the prediction.

        References:
            Our derivation after arXiv 2411.14871, section on stepwise estimation.
        """
        alpha, sigma = self.alpha, self.sigma
        before = torch.cat([alpha.new_ones(1), alpha[:-1]])
        noise = torch.cat([sigma.new_zeros(1), sigma[:-1]])
        forward = sigma**2 - (alpha / before) ** 2 * noise**2
        if variance == "beta":
            coefficient = before**2 * forward / (2 * sigma**4)
        else:
            noise = torch.cat([noise[1:2], noise[1:]])
            coefficient = before**2 * forward / (2 * sigma**2 * noise**2)
        return coefficient * self.kappa

    def x0_estimate(self) -> Linear:
        """`xhat_0 = offset_t * x_t + slope_t * prediction`, whatever the network predicts.

        Returns:
            Offset and slope; slope^2 is `kappa`.
        """
        ones, zeros = torch.ones_like(self.alpha), torch.zeros_like(self.alpha)
        return {
            "epsilon": Linear(1 / self.alpha, -self.sigma / self.alpha),
            "v_prediction": Linear(self.alpha, -self.sigma),
            "sample": Linear(zeros, ones),
            "flow": Linear(ones, -self.sigma),
        }[self.prediction]

    def step_estimate(self) -> Linear:
        """Mean of one reverse step, `x_{t-1} = offset_t * x_t + slope_t * prediction`.

        The posterior's mean is `r sigma_{t-1}^2 / sigma_t^2 x_t + alpha_{t-1} v_t / sigma_t^2 x_0`
        with `r = alpha_t / alpha_{t-1}` and `v_t = sigma_t^2 - r^2 sigma_{t-1}^2`. For noise
        prediction on a DDPM schedule the slope is `-beta_t / (sqrt(alpha_t) sqrt(1 - abar_t))`.

        Returns:
            Offset and slope.

        References:
            Ho et al., arXiv 2006.11239, equation 7, written for any alpha and sigma.
        """
        alpha, sigma = self.alpha, self.sigma
        before = torch.cat([alpha.new_ones(1), alpha[:-1]])
        noise = torch.cat([sigma.new_zeros(1), sigma[:-1]])
        ratio = alpha / before
        of_x_t = ratio * noise**2 / sigma**2
        of_x_0 = before * (sigma**2 - ratio**2 * noise**2) / sigma**2
        x_0 = self.x0_estimate()
        return Linear(of_x_t + of_x_0 * x_0.offset, of_x_0 * x_0.slope)


@cache
def _stable_diffusion_log_snr() -> torch.Tensor:
    ends = 0.00085**0.5, 0.012**0.5
    betas = torch.linspace(*ends, STATED_LENGTH, dtype=torch.float64).square()
    abar = (1 - betas).cumprod(0)
    return abar.log() - (1 - abar).log()
