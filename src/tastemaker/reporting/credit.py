"""Figures of credit assignment: kappa, corrections, and the loss's weight per timestep.

`figures(folder)` gives them for any trained model, ready to save; the page shows the same ones.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from tastemaker.core.errors import TastemakerError
from tastemaker.reporting.figures import Array
from tastemaker.reporting.svg import Palette, Panel
from tastemaker.storage.files import read_json_lines, read_record

BRANCHES = ("policy, chosen", "policy, rejected", "reference, chosen", "reference, rejected")

MEANINGS = {
    "weight": "How strongly an error at t pulls on the policy: the scheme's scale times the share"
    " that the sigmoid leaves. At the first step it has the shape of the scale.",
    "margin": "The scaled margin z: how far apart chosen and rejected are at this noise level.",
    "accuracy": "Share of pairs with a positive margin. Above one half the policy prefers what was"
    " chosen at this noise level.",
}

THIRDS = "One line per third of the training, from early (faint) to late (solid)."

SHARE = (
    "In which tenth of the timesteps the loss's gradient lies, as shares of its squared norm at the"
    " network's output. Even: every tenth teaches alike. Most of it in one tenth: the others hardly"
    " count."
)

# The page's text is not parsed for mathematics, in which the default labels of decades are written.
PLAIN = FuncFormatter(lambda value, _: f"{value:g}")

SMALL_CORRECTION = 0.01
"""Below this the axis of corrections is linear, above it logarithmic: they span decades."""

PREFIX = "credit-"
Draw = Callable[..., None]
Rows = npt.NDArray[np.intp]
"""Indices of optimizer steps."""


@dataclass(frozen=True)
class CreditRecord:
    """The records of a training about its credit scheme.

    Args:
        length: T.
        prediction: The network's prediction type.
        timesteps: Timesteps of the curves, shape `[points]`.
        kappa: From the error of the prediction to that of x_0; NaN where infinite.
        scale: The scheme's factor on the errors.
        density: Relative frequency of a timestep; 1 is the average.
        sums: Sums of each observed value, shape `[steps, bands]`; `count` among them.
        corrections: Optimizer step to the four branches' corrections, shape `[4, points]`.
    """

    length: int
    prediction: str
    timesteps: Array
    kappa: Array
    scale: Array
    density: Array
    sums: dict[str, Array]
    corrections: dict[int, Array]


def read(folder: Path) -> CreditRecord | None:
    """Read `credit.json` and `credit.jsonl` of a trained model's folder.

    Returns:
        None where the folder has none.

    Raises:
        TastemakerError: The file of the scheme is broken.
    """
    scheme, steps = folder / "credit.json", folder / "credit.jsonl"
    if not scheme.is_file() or not steps.is_file():
        return None
    curves = dict.fromkeys(("timesteps", "kappa", "scale", "density"), list)
    held = read_record(scheme, length=int, prediction=str, **curves)
    rows = read_json_lines(steps, step=int)
    if not rows:
        return None
    names = [name for name in rows[0] if name not in {"step", "correction"}]
    return CreditRecord(
        length=int(held["length"]),
        prediction=str(held["prediction"]),
        timesteps=_array(held["timesteps"]),
        kappa=_array(held["kappa"]),
        scale=_array(held["scale"]),
        density=_array(held["density"]),
        sums={name: np.array([row[name] for row in rows], dtype=np.float64) for name in names},
        corrections={
            int(row["step"]): np.array(row["correction"], dtype=np.float64)
            for row in rows
            if "correction" in row
        },
    )


def figures(folder: Path | str) -> dict[str, Figure]:
    """Draw the diagnostics of a trained model's credit scheme.

    Args:
        folder: The trained model's folder, for instance `runs/dde-nano/policy`.

    Returns:
        Name to matplotlib figure: `kappa`, `weight`, `margin`, `accuracy`, `gradient`, and with a
        scheme that keeps arrays `correction` and `convergence`. Save one with
        `figure.savefig("kappa.pdf")`.

    Raises:
        TastemakerError: The folder holds no training.

    Example:
        >>> from tastemaker.reporting.credit import figures
        >>> figures("runs/dde-nano/policy")["kappa"].savefig("kappa.png")  # doctest: +SKIP
    """
    credit = read(Path(folder))
    if credit is None:
        raise TastemakerError(f"{folder} has no credit.jsonl; name the folder of a trained model.")
    drawn = {each.name.removeprefix(PREFIX): each.figure for each in _panels(credit)}
    return {name: figure for name, figure in drawn.items() if figure is not None}


def panels(folder: Path) -> list[Panel]:
    """Return the same figures for the page; empty where nothing was trained."""
    credit = read(folder)
    return [] if credit is None else _panels(credit)


def _panels(credit: CreditRecord) -> list[Panel]:
    """Return the figures that this training has data for."""

    def panel(name: str, title: str, meaning: str, draw: Draw) -> Panel:
        return Panel(f"{PREFIX}{name}", title, meaning, functools.partial(draw, credit=credit))

    found = [
        panel(
            "kappa",
            "Kappa and the scheme over time",
            "Kappa turns the error of the prediction at t into that of the finished image. The"
            " scheme multiplies errors by its scale, and draws t in proportion to its density.",
            _scheme,
        )
    ]
    if credit.corrections:
        found += [
            panel(
                "correction",
                "Corrections",
                "What the denoising steps before t add to each branch at the end of training: the"
                " sum of their estimated log-ratios. Only the difference of the branches moves the"
                " loss.",
                _correction,
            ),
            panel(
                "convergence",
                "Convergence of the corrections",
                "The chosen branch of the policy, from early (faint) to late (solid). Once the"
                " lines lie on one another, the running estimates have settled.",
                _convergence,
            ),
        ]
    found += [
        panel(
            name,
            f"{name.capitalize()} by timestep",
            f"{meaning} {THIRDS}",
            functools.partial(_bands, name=name),
        )
        for name, meaning in MEANINGS.items()
    ]
    if "gradient" in credit.sums:  # not in trainings of earlier versions
        found.append(
            panel("gradient", "Share of the gradient by timestep", f"{SHARE} {THIRDS}", _shares)
        )
    return found


def _scheme(axes: Axes, palette: Palette, credit: CreditRecord) -> None:
    series = {
        f"kappa ({credit.prediction})": (credit.kappa, "base", (4, 3)),
        "scale": (credit.scale, "policy", (1, 0)),
        "density": (credit.density, "other-2", (1, 1)),
    }
    for label, (values, role, dashes) in series.items():
        axes.plot(credit.timesteps, values, color=palette[role], dashes=dashes, label=label)
    positive = credit.kappa[np.isfinite(credit.kappa) & (credit.kappa > 0)]
    if len(positive) and positive.max() > 30:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(PLAIN)
    _finish(axes, "factor")


def _correction(axes: Axes, palette: Palette, credit: CreditRecord) -> None:
    last = credit.corrections[max(credit.corrections)]
    roles = ("chosen", "rejected", "chosen", "rejected")
    for label, values, role, dashes in zip(
        BRANCHES, last, roles, ((1, 0), (1, 0), (4, 3), (4, 3)), strict=True
    ):
        axes.plot(credit.timesteps, values, color=palette[role], dashes=dashes, label=label)
    axes.set_yscale("symlog", linthresh=SMALL_CORRECTION)
    axes.yaxis.set_major_formatter(PLAIN)
    _finish(axes, "correction")


def _convergence(axes: Axes, palette: Palette, credit: CreditRecord) -> None:
    steps = sorted(credit.corrections)
    shown = [steps[i] for i in sorted({round(x) for x in np.linspace(0, len(steps) - 1, 6)})]
    for place, step in enumerate(shown):
        axes.plot(
            credit.timesteps,
            credit.corrections[step][0],
            color=palette["policy"],
            alpha=(place + 1) / len(shown),
            label=f"step {step}",
        )
    axes.set_yscale("symlog", linthresh=SMALL_CORRECTION)
    axes.yaxis.set_major_formatter(PLAIN)
    _finish(axes, "correction")


def _bands(axes: Axes, palette: Palette, credit: CreditRecord, name: str) -> None:
    """Draw means over the pairs of each band."""

    def mean(rows: Rows) -> Array:
        drawn = credit.sums["count"][rows].sum(0)
        total = credit.sums[name][rows].sum(0)
        return np.divide(total, drawn, out=np.full(len(drawn), np.nan), where=drawn > 0)

    _thirds(axes, credit, mean, palette)
    level = {"accuracy": 0.5, "margin": 0.0}.get(name)
    if level is not None:
        axes.axhline(level, color=palette["muted"], linewidth=1.0, dashes=(4, 3))
    _finish(axes, name)


def _shares(axes: Axes, palette: Palette, credit: CreditRecord) -> None:
    """Draw each band's share of the whole."""

    def share(rows: Rows) -> Array:
        total = credit.sums["gradient"][rows].sum(0)
        return 100 * total / max(total.sum(), np.finfo(np.float64).tiny)

    _thirds(axes, credit, share, palette)
    axes.set_ylim(bottom=0)
    _finish(axes, "percent of the squared gradient")


def _thirds(
    axes: Axes, credit: CreditRecord, value: Callable[[Rows], Array], palette: Palette
) -> None:
    """Draw a value per band, over the steps of each third of the training."""
    steps, bands = credit.sums["count"].shape
    middle = (np.arange(bands) + 0.5) * credit.length / bands
    parts = min(3, steps)
    for place, rows in enumerate(np.array_split(np.arange(steps), parts)):
        axes.plot(
            middle,
            value(rows),
            "o-",
            markersize=3,
            color=palette["policy"],
            alpha=(place + 1) / parts,
            label=f"steps {rows[0] + 1} to {rows[-1] + 1}",
        )


def _finish(axes: Axes, label: str) -> None:
    axes.set_xlabel("timestep")
    axes.set_ylabel(label)
    axes.margins(x=0.01)
    axes.grid(axis="x", visible=False)
    axes.legend(frameon=False, fontsize=8)


def _array(values: list[Any]) -> Array:
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)
