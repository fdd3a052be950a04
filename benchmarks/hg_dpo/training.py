"""What the stages' loops share: checkpoints, the clock, and how pictures are moved about."""

import time
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import affine_grid, avg_pool2d, grid_sample, interpolate

from tastemaker.nano.build.averaging import Average, cosine, set_rate

SAVE_SECONDS = 30


class Training:
    """A module in training by the clock: killed and started again, it goes on.

    Args:
        path: The checkpoint, read where it exists.
        module: What is trained.
        minutes: How long; the time before a stop counts, the pause does not.
        rate: Highest learning rate.
        decay: Of the moving average of the weights.
        weight_decay: Of AdamW.
    """

    def __init__(
        self,
        path: Path,
        module: nn.Module,
        minutes: float,
        *,
        rate: float,
        decay: float,
        weight_decay: float,
    ) -> None:
        self.path, self.module, self.total, self.rate = path, module, 60 * minutes, rate
        self.optimizer = torch.optim.AdamW(
            module.parameters(), lr=rate, weight_decay=weight_decay, foreach=True
        )
        self.average = Average(module, decay)
        self.step, self.spent = 0, 0.0
        if path.exists():
            self._restore(torch.load(path, weights_only=True))
        self.began = time.monotonic() - self.spent
        self.saved = time.monotonic()

    def running(self) -> bool:
        """Whether time is left; at the end the state is saved."""
        self.spent = time.monotonic() - self.began
        if self.spent < self.total:
            return True
        self._save()
        return False

    @property
    def progress(self) -> float:
        """Share of the time that is over."""
        return min(1.0, self.spent / self.total)

    def update(self, loss: Tensor) -> None:
        """One step of the optimizer and the average, at the rate of this moment."""
        set_rate(self.optimizer, self.rate * cosine(self.progress))
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.module.parameters(), 1.0)
        self.optimizer.step()
        self.average.update(self.module)
        self.step += 1
        if time.monotonic() - self.saved > SAVE_SECONDS:
            self._save()

    def _restore(self, state: dict) -> None:
        self.module.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.average.weights, self.average.steps = state["average"], state["step"]
        self.step, self.spent = state["step"], state["spent"]

    def _save(self) -> None:
        state = {
            "model": self.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average.weights,
            "step": self.step,
            "spent": self.spent,
        }
        save(state, self.path)
        self.saved = time.monotonic()


def save(state: dict, path: Path) -> None:
    """Write a checkpoint so that a torn file is never read."""
    torch.save(state, path.with_suffix(".tmp"))
    path.with_suffix(".tmp").replace(path)


def to_float(pictures: Tensor) -> Tensor:
    """Bytes as floats in [-1, 1]."""
    return pictures.float() / 127.5 - 1


def flipped(pictures: Tensor) -> Tensor:
    """Each picture mirrored or not, by chance."""
    mirror = torch.rand(len(pictures), 1, 1, 1) < 0.5
    return torch.where(mirror, pictures.flip(3), pictures)


def moved(pictures: Tensor) -> Tensor:
    """Each mirrored or not and shifted by up to 3 pixels; every second is zoomed too, by up to 6%.

    The shifts are whole pixels: where there is no zoom, no pixel is blurred.
    """
    size = len(pictures)
    zoomed = (torch.rand(size) < 0.5).float()
    zoom = 1 + 0.06 * zoomed * (2 * torch.rand(size) - 1)
    mirror = 1 - 2 * (torch.rand(size) < 0.5).float()
    theta = torch.zeros(size, 2, 3)
    theta[:, 0, 0], theta[:, 1, 1] = zoom * mirror, zoom
    theta[:, :, 2] = torch.randint(-3, 4, (size, 2)) * 2 / pictures.shape[-1]
    grid = affine_grid(theta, list(pictures.shape), align_corners=False)
    return grid_sample(pictures, grid, padding_mode="border", align_corners=False)


def halved(pictures: Tensor) -> Tensor:
    """Pictures brought to half their size and back: what they show without their texture."""
    return interpolate(avg_pool2d(pictures, 2), scale_factor=2, mode="bilinear")
