"""Metrics of a step on pairs, and the loss weight per timestep band.

The report draws the figures of the DDE paper from `credit.json` (the scheme) and `credit.jsonl`
(the steps).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from tastemaker.losses import DenoisingErrors
from tastemaker.storage.files import write_json
from tastemaker.training.checkpoint import drop_later_lines
from tastemaker.training.preference.credit import Credit
from tastemaker.training.trainer import append_line

BANDS = 10
"""Equal bands of timesteps that a step's values are summed over."""

POINTS = 50
"""Timesteps at which curves over t are kept."""

SNAPSHOTS = 50
"""Number of steps per run that keep the corrections, at most."""

OBSERVED = ("margin", "accuracy", "saturation", "weight", "gradient")


def step_metrics(
    errors: DenoisingErrors, seen: DenoisingErrors, observed: torch.Tensor, beta: float
) -> dict[str, torch.Tensor]:
    """Summarise a batch in TRL's keys, and the drift of both branches.

    `reward = 0.5 * beta * (ref - pol)` is the implicit reward. The margin can grow while both
    errors grow, the known divergence of DPO on diffusion: `errors/chosen` above 0 shows it.

    Args:
        errors: The batch's errors as the network made them: the drift.
        seen: The errors with their credit, as the loss saw them: the rewards.
        observed: From `observe`.
        beta: The loss's beta.

    Returns:
        Scalars, detached: means over the batch.

    References:
        Divergence: arXiv 2511.03317.
    """
    margin, accuracy, *_ = observed
    return {
        "rewards/chosen": (0.5 * beta * seen.chosen_gain.detach()).mean(),
        "rewards/rejected": (0.5 * beta * seen.rejected_gain.detach()).mean(),
        "rewards/accuracies": accuracy.mean(),
        "rewards/margins": margin.mean(),
        "errors/chosen": (errors.policy_chosen - errors.reference_chosen).detach().mean(),
        "errors/rejected": (errors.policy_rejected - errors.reference_rejected).detach().mean(),
    }


def observe(
    errors: DenoisingErrors, seen: DenoisingErrors, losses: torch.Tensor, beta: float
) -> torch.Tensor:
    """Measure how each pair of a batch pulls on the policy.

    Rows, in the order of `OBSERVED`: the scaled margin `z = 0.5 * beta * margin`; whether it is
    positive, a tie counted half; `sigmoid(-z)`, which falls to 0 as a pair is learnt; the effective
    weight `w_c = d loss / d error of the chosen image / (0.5 * beta)`, for `dpo`
    `scale_t * sigmoid(-z)`; and `w_c^2 e_c + w_r^2 e_r`, the squared norm of the loss's gradient at
    the network's output up to a constant (before the safeguard). Both are taken from the graph, so
    that they hold for any loss.

    Args:
        errors: The errors as the network made them, the policy's with their graph.
        seen: The errors with their credit.
        losses: Shape [pairs], computed from these.
        beta: The loss's beta.

    Returns:
        Shape [5, pairs], without graph.

    References:
        arXiv 2411.14871, the figures of gradients by timestep.
    """
    branches = (errors.policy_chosen, errors.policy_rejected)
    slopes = torch.autograd.grad(
        losses.sum(), branches, retain_graph=True, allow_unused=True, materialize_grads=True
    )
    chosen, rejected = (slope / (0.5 * beta) for slope in slopes)
    gradient = chosen.square() * branches[0].detach() + rejected.square() * branches[1].detach()
    z = 0.5 * beta * seen.margin.detach()
    accuracy = (z > 0).to(z.dtype) + 0.5 * (z == 0).to(z.dtype)
    return torch.stack([z, accuracy, torch.sigmoid(-z), chosen, gradient])


def describe(credit: Credit) -> dict[str, Any]:
    """Return a scheme as curves over t: what `credit.json` holds.

    Args:
        credit: The scheme on its schedule.

    Returns:
        T, what the network predicts, and at `POINTS` timesteps kappa, the scale of the errors, and
        how often the timestep is drawn, 1 being the average.
    """
    timesteps = _points(credit)
    density = credit.density()
    share = torch.ones(len(credit.schedule)) if density is None else density / density.mean()
    return {
        "length": len(credit.schedule),
        "prediction": credit.schedule.prediction,
        "timesteps": timesteps.tolist(),
        "kappa": _numbers(credit.schedule.kappa[timesteps]),
        "scale": _numbers(credit.scale(timesteps)),
        "density": _numbers(share[timesteps]),
    }


class CreditDiary:
    """Writes `credit.json`, and collects the lines of `credit.jsonl` on the device.

    A line holds for each band of timesteps the number of pairs drawn there (`count`) and the sums
    over them of what `observe` measures; about `SNAPSHOTS` times per run also the four branches'
    corrections (`correction`, shape [4, POINTS]), as they were after that step.

    Args:
        credit: The scheme.
        steps: Steps of the whole training.
        folder: Of the trained model; None in all processes but the main one.
        start: Steps of the checkpoint that the run goes on from; later lines are dropped.
    """

    def __init__(self, credit: Credit, steps: int, folder: Path | None, start: int) -> None:
        self.credit = credit
        self.steps = steps
        self.points = _points(credit)
        self.corrects, self.length = bool(credit.state()), len(credit.schedule)
        self.file = folder and folder / "credit.jsonl"
        if self.file is not None:
            write_json(self.file.with_suffix(".json"), describe(credit))
            drop_later_lines(self.file, start)
        self.seen: list[tuple[int, torch.Tensor, torch.Tensor, torch.Tensor | None]] = []

    def see(self, step: int, observed: torch.Tensor, timesteps: torch.Tensor) -> None:
        """Note this process's pairs of a step, after the update of the scheme.

        Args:
            step: Its number.
            observed: From `observe`, shape [5, pairs].
            timesteps: Shape [pairs].
        """
        due = step % -(-self.steps // SNAPSHOTS) == 0 or step == self.steps
        correction = None
        if due and self.corrects:
            self.points = self.points.to(timesteps.device)
            correction = self.credit.correction(self.points)
        self.seen.append((step, observed, timesteps, correction))

    def write(self, gather: Callable[[torch.Tensor], torch.Tensor]) -> None:
        """Write the lines of the steps noted since the last time.

        Args:
            gather: Collects the pairs of all processes, along the last dimension.
        """
        for step, observed, timesteps, correction in self.seen:
            row = self._row(gather(observed).double().cpu(), gather(timesteps).cpu())
            if correction is not None:
                row["correction"] = correction.tolist()
            if self.file is not None:
                append_line(self.file, step, row)
        self.seen = []

    def _row(self, observed: torch.Tensor, timesteps: torch.Tensor) -> dict[str, Any]:
        band = timesteps * BANDS // self.length
        sums = torch.zeros(len(OBSERVED), BANDS, dtype=torch.float64).index_add_(1, band, observed)
        count = torch.bincount(band, minlength=BANDS).tolist()
        return {"count": count, **dict(zip(OBSERVED, sums.tolist(), strict=True))}


class DivergenceWatch:
    """Warns once when margin and chosen error grow together.

    Args:
        window: Steps that are averaged; two such windows are compared.
    """

    def __init__(self, window: int = 50) -> None:
        self.window = window
        self.rows: deque[tuple[float, float]] = deque(maxlen=2 * window)
        self.warned = False

    def seen(self, margin: float, chosen: float) -> str | None:
        """Note a step; return a warning where there is cause, the first time only.

        Args:
            margin: `rewards/margins`.
            chosen: `errors/chosen`, policy minus reference.

        Returns:
            One sentence with the remedy, or None.
        """
        self.rows.append((margin, chosen))
        if self.warned or len(self.rows) < 2 * self.window:
            return None
        margins, errors = zip(*self.rows, strict=True)
        margin_grew = sum(margins[self.window :]) > sum(margins[: self.window])
        error_grew = sum(errors[self.window :]) > max(0.0, sum(errors[: self.window]))
        if not (margin_grew and error_grew):
            return None
        self.warned = True
        return (
            "the margin grows while the chosen error grows: the model is forgetting both images."
            " Lower the learning rate, raise beta, or set train.guards.chosen_penalty."
        )


def _points(credit: Credit) -> torch.Tensor:
    last = len(credit.schedule) - 1
    return torch.linspace(0, last, min(POINTS, last + 1), dtype=torch.float64).round().long()


def _numbers(values: torch.Tensor) -> list[float | None]:
    """Plain numbers; None where a schedule that ends in pure noise makes kappa infinite."""
    return [value if abs(value) < float("inf") else None for value in values.double().tolist()]
