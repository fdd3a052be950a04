"""Moving average of weights, and a cosine schedule with warm-up: shared by the training loops."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn


class Average:
    """Exponential moving average of a module's parameters, warmed up from the first step."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        """Start from the module's present weights."""
        self.decay = decay
        self.steps = 0
        self.weights = {name: value.detach().clone() for name, value in module.named_parameters()}

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Move the average towards the module's weights."""
        self.steps += 1
        weight = 1 - min(self.decay, (1 + self.steps) / (10 + self.steps))
        current = dict(module.named_parameters())
        torch._foreach_lerp_(
            list(self.weights.values()), [current[name] for name in self.weights], weight
        )

    @torch.no_grad()
    def copy_to(self, module: nn.Module) -> None:
        """Overwrite the module's weights with the average."""
        for name, value in module.named_parameters():
            value.copy_(self.weights[name])


def cosine(progress: float, warmup: float = 0.02, floor: float = 0.02) -> float:
    """Learning-rate factor at a share of the training done: linear rise, then half a cosine."""
    if progress < warmup:
        return (progress + 1e-4) / warmup
    share = min(1.0, (progress - warmup) / (1 - warmup))
    return floor + (1 - floor) * (1 + math.cos(math.pi * share)) / 2


def trapezoid(step: int, total: int, warmup: int = 500, decay: float = 0.2) -> float:
    """Learning-rate factor of a step: linear rise, constant, linear fall over the last part.

    Until the fall begins, nothing depends on the total, so that it may still be raised.

    Example:
        >>> [trapezoid(step, 100, warmup=2) for step in (0, 1, 50, 80, 90, 99)]
        [0.5, 1.0, 1.0, 1.0, 0.5, 0.05]
    """
    return min(1.0, (step + 1) / warmup, (total - step) / (decay * total))


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of all groups."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def psnr(pictures: Iterable[Tensor], originals: Iterable[Tensor]) -> float:
    """Mean peak signal-to-noise ratio in dB of pictures with values in [-1, 1]."""
    values = [
        10 * math.log10(4 / max(float((a - b).square().mean()), 1e-10))
        for a, b in zip(pictures, originals, strict=True)
    ]
    return sum(values) / len(values)
