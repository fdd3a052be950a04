"""Running estimates of every denoising step's error: the arrays of DDE's stepwise part.

A branch is one of policy/reference on chosen/rejected, in the order of `BRANCHES`.
"""

from __future__ import annotations

from tastemaker.core.lazy_torch import torch
from tastemaker.core.noise_schedule import NoiseSchedule

BRANCHES = ("policy_chosen", "policy_rejected", "reference_chosen", "reference_rejected")


class StepArrays:
    """Running estimates of every step's error, one array per branch; their sums over `s > t`.

    What is kept is the error, which changes slowly with t, and not `c_s * error_s`: c falls 45-fold
    within the first fiftieth of a Stable Diffusion schedule.

    Args:
        schedule: The backbone's schedule.
        ema: Share of the old value kept at an update.
        buckets: Number of buckets of timesteps, at most; 0 for one per timestep.
        variance: Variance of a reverse step.
        sign: Where x_{s-1} is put.

    Raises:
        ValueError: More buckets than timesteps, or a step whose coefficient is infinite.
    """

    def __init__(
        self, schedule: NoiseSchedule, *, ema: float, buckets: int, variance: str, sign: str
    ) -> None:
        length = len(schedule)
        if buckets > length:
            raise ValueError(f"{buckets} buckets are more than the {length} timesteps; take fewer")
        coefficient = schedule.step_coefficient(variance)
        if not torch.isfinite(coefficient).all():
            raise ValueError(
                "noise prediction says nothing of x_0 at the last timestep of this schedule, which"
                " is pure noise; take dde_single or uniform"
            )
        self.bucket = bucket_timesteps(coefficient, buckets) if buckets else torch.arange(length)
        self.coefficient = -coefficient if sign == "model_mode" else coefficient
        self.ema = ema
        count = int(self.bucket[-1]) + 1
        self.values = torch.zeros(len(BRANCHES), count, dtype=torch.float64)
        self.visited = torch.zeros(count, dtype=torch.bool)

    def tail(self, timesteps: torch.Tensor) -> torch.Tensor:
        """`sum_{s > t} c_s A[s]`, shape [4, pairs]; steps not yet visited are interpolated."""
        steps = self.coefficient * self._filled()[:, self.bucket]
        inclusive = steps.flip(1).cumsum(1).flip(1)
        return at_timesteps(inclusive - steps, timesteps)

    def update(self, errors: torch.Tensor, timesteps: torch.Tensor) -> None:
        """Mix this iteration's mean of every bucket it touched into the arrays.

        Args:
            errors: All that an optimizer step saw, in all batches and processes, [4, pairs].
            timesteps: Theirs, shape [pairs].
        """
        bucket = self.bucket[timesteps.to(self.bucket.device)]
        fresh = errors.detach().to(self.values)
        count = torch.zeros_like(self.values[0])
        count.index_add_(0, bucket, torch.ones_like(fresh[0]))
        total = torch.zeros_like(self.values).index_add_(1, bucket, fresh)
        touched = count > 0
        kept = torch.where(self.visited, self.ema, 0.0)
        mixed = kept * self.values + (1 - kept) * (total / count.clamp(min=1))
        self.values = torch.where(touched, mixed, self.values)
        self.visited |= touched

    def _filled(self) -> torch.Tensor:
        """The arrays with unvisited buckets interpolated between visited neighbours."""
        count = len(self.visited)
        index = torch.arange(count, device=self.visited.device)
        # Nearest visited bucket on either side; beyond the first and last of them, that one.
        left = torch.where(self.visited, index, -1).cummax(0).values
        right = torch.where(self.visited, index, count).flip(0).cummin(0).values.flip(0)
        low = torch.where(left < 0, right, left).clamp(max=count - 1)
        high = torch.where(right == count, low, right)
        share = ((index - low).double() / (high - low).clamp(min=1)).clamp(0, 1)
        return self.values[:, low] * (1 - share) + self.values[:, high] * share


def bucket_timesteps(coefficient: torch.Tensor, count: int) -> torch.Tensor:
    """Put timesteps into buckets of equal shares of `(c_t / sum c + 1 / T) / 2`.

    Narrow where c is large, so that one mean error stands for the few steps whose sum it decides,
    and no wider than twice an even cut elsewhere.

    Args:
        coefficient: c, positive, shape [T].
        count: Number of buckets, at most: a timestep with more than one share fills a bucket alone.

    Returns:
        Bucket of each timestep, from 0 without gaps, shape [T].

    Example:
        >>> bucket_timesteps(torch.tensor([6.0, 1.0, 1.0, 1.0, 1.0]), 3).tolist()
        [0, 1, 1, 2, 2]
    """
    share = (coefficient / coefficient.sum() + 1 / len(coefficient)) / 2
    middle = share.cumsum(0) - share / 2
    return torch.unique((middle * count).long(), return_inverse=True)[1]


def at_timesteps(values: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
    """Read values of shape [..., T] at timesteps, as float32 where the timesteps are."""
    return values[..., timesteps.to(values.device)].float().to(timesteps.device)


def move_arrays(owner: object, device: torch.device) -> None:
    """Move the tensors of a credit scheme, and of what it is made of, by `beside`."""
    for name, value in vars(owner).items():
        if isinstance(value, torch.Tensor):
            setattr(owner, name, beside(value, device))
        elif hasattr(value, "__dict__") and not isinstance(value, NoiseSchedule):
            move_arrays(value, device)


def beside(values: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Move float64 values to a device if it computes in them: there no step waits for them."""
    return values if device.type == "mps" else values.to(device)
