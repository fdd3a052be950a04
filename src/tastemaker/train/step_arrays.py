"""Running estimates of every denoising step's error: the arrays of DDE's stepwise part.

A branch is one of policy/reference on chosen/rejected, in the order of `BRANCHES`.
"""

from __future__ import annotations

import torch

from tastemaker.noise import NoiseSchedule

BRANCHES = ("policy_chosen", "policy_rejected", "reference_chosen", "reference_rejected")


class StepArrays:
    """Running estimates of every step's `c_s * error_s`, one array a branch, summed over `s > t`.

    Args:
        schedule: The backbone's schedule.
        ema: Share of the old value kept at an update.
        buckets: Number of buckets of timesteps; 0 for one a timestep.
        variance: Variance of a reverse step.
        sign: Where x_{s-1} is put.
    """

    def __init__(
        self, schedule: NoiseSchedule, *, ema: float, buckets: int, variance: str, sign: str
    ) -> None:
        length = len(schedule)
        count = buckets or length
        if count > length:
            raise ValueError(f"{buckets} buckets are more than the {length} timesteps; take fewer")
        self.coefficient = schedule.step_coefficient(variance)
        self.coefficient = -self.coefficient if sign == "model_mode" else self.coefficient
        self.bucket = torch.arange(length) * count // length
        self.ema = ema
        self.values = torch.zeros(len(BRANCHES), count, dtype=torch.float64)
        self.visited = torch.zeros(count, dtype=torch.bool)

    def tail(self, timesteps: torch.Tensor) -> torch.Tensor:
        """`C_t = sum_{s > t} A[s]`, shape [4, pairs]; steps not yet visited are interpolated."""
        steps = self._filled()[:, self.bucket]
        inclusive = steps.flip(1).cumsum(1).flip(1)
        return at_timesteps(inclusive - steps, timesteps)

    def update(self, errors: torch.Tensor, timesteps: torch.Tensor) -> None:
        """Mix this iteration's mean of every bucket it touched into the arrays."""
        where = timesteps.cpu()
        fresh = errors.detach().double().cpu() * self.coefficient[where]
        bucket = self.bucket[where]
        count = torch.zeros(len(self.visited), dtype=torch.float64)
        count.index_add_(0, bucket, torch.ones(len(where), dtype=torch.float64))
        total = torch.zeros_like(self.values).index_add_(1, bucket, fresh)
        touched = count > 0
        mean = total[:, touched] / count[touched]
        kept = torch.where(self.visited[touched], self.ema, 0.0)
        self.values[:, touched] = kept * self.values[:, touched] + (1 - kept) * mean
        self.visited |= touched

    def _filled(self) -> torch.Tensor:
        """The arrays with unvisited buckets interpolated between visited neighbours."""
        known = self.visited.nonzero().flatten()
        if len(known) in (0, len(self.visited)):
            return self.values
        index = torch.arange(len(self.visited))
        right = torch.searchsorted(known, index).clamp(max=len(known) - 1)
        left = (torch.searchsorted(known, index, right=True) - 1).clamp(min=0)
        low, high = known[left], known[right]
        share = ((index - low).double() / (high - low).clamp(min=1)).clamp(0, 1)
        return self.values[:, low] * (1 - share) + self.values[:, high] * share


def at_timesteps(values: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
    """Read values of shape [..., T] at timesteps, as float32 where the timesteps are."""
    return values[..., timesteps.cpu()].float().to(timesteps.device)
