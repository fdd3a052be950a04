"""Figures of credit assignment: kappa, the corrections, and where in time the loss put its weight.

`figures(folder)` gives them for any trained model, ready to save; the page shows the same ones.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from tastemaker.core.errors import TastemakerError
from tastemaker.reporting.figures import Array
from tastemaker.reporting.svg import COLOURS, PRINT, styled, to_svg
from tastemaker.storage.files import read_json_lines, read_record

BRANCHES = ("policy, chosen", "policy, rejected", "reference, chosen", "reference, rejected")

MEANINGS = {
    "weight": "How strongly an error at t pulls on the policy: the scheme's scale times the share"
    " that the sigmoid leaves. At the first step it has the shape of the scale.",
    "margin": "The scaled margin z: how far apart chosen and rejected are at this noise level.",
    "accuracy": "Share of pairs with a positive margin. Above one half the policy prefers what was"
    " chosen at this noise level.",
}

THIRDS = "One line a third of the training, from early (faint) to late (solid)."

SHARE = (
    "In which tenth of the timesteps the loss's gradient lies, as shares of its squared norm at the"
    " network's output. Even: every tenth teaches alike. Most of it in one tenth: the others hardly"
    " count."
)

# The page's text is not parsed for mathematics, in which the default labels of decades are written.
PLAIN = FuncFormatter(lambda value, _: f"{value:g}")

SMALL_CORRECTION = 0.01
"""Below this the axis of corrections is linear, above it logarithmic: they span decades."""

Palette = Mapping[str, str]
Rows = npt.NDArray[np.intp]
"""Places of optimizer steps."""


@dataclass(frozen=True)
class Credit:
    """What a training wrote about its credit scheme.

    Args:
        length: T.
        prediction: What the network predicts.
        timesteps: Where the curves are known, shape `[points]`.
        kappa: From the error of the prediction to that of x_0; NaN where infinite.
        scale: The scheme's factor on the errors.
        density: How often a timestep is drawn; 1 is the average.
        sums: Of each observed value by step and band, shape `[steps, bands]`; `count` among them.
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


@dataclass(frozen=True)
class Panel:
    """A figure of the page."""

    title: str
    meaning: str
    svg: Markup


def read(folder: Path) -> Credit | None:
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
    return Credit(
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
    return {name: styled(drawing.draw, PRINT) for name, drawing in _drawings(credit, PRINT).items()}


def panels(folder: Path) -> list[Panel]:
    """Draw the same figures for the page; none where nothing was trained."""
    credit = read(folder)
    if credit is None:
        return []
    return [
        Panel(each.title, each.meaning, to_svg(styled(each.draw, COLOURS), f"credit-{name}"))
        for name, each in _drawings(credit, COLOURS).items()
    ]


@dataclass(frozen=True)
class Drawing:
    """What a figure is called, what it means, and how it is drawn."""

    title: str
    meaning: str
    draw: Callable[[Axes], None]


def _drawings(credit: Credit, palette: Palette) -> dict[str, Drawing]:
    """Title, meaning and drawing of every figure that this training has data for."""
    drawings = {
        "kappa": Drawing(
            "Kappa and the scheme over time",
            "Kappa turns the error of the prediction at t into that of the finished image. The"
            " scheme multiplies errors by its scale, and draws t in proportion to its density.",
            lambda axes: _scheme(axes, credit, palette),
        )
    }
    if credit.corrections:
        drawings["correction"] = Drawing(
            "Corrections",
            "What the denoising steps before t add to each branch at the end of training: the sum"
            " of their estimated log-ratios. Only the difference of the branches moves the loss.",
            lambda axes: _correction(axes, credit, palette),
        )
        drawings["convergence"] = Drawing(
            "Convergence of the corrections",
            "The chosen branch of the policy, from early (faint) to late (solid). Once the lines"
            " lie on one another, the running estimates have settled.",
            lambda axes: _convergence(axes, credit, palette),
        )
    for name, meaning in MEANINGS.items():
        drawings[name] = Drawing(
            f"{name.capitalize()} by timestep",
            f"{meaning} {THIRDS}",
            functools.partial(_bands, credit=credit, name=name, palette=palette),
        )
    if "gradient" in credit.sums:  # not in trainings of earlier versions
        drawings["gradient"] = Drawing(
            "Share of the gradient by timestep",
            f"{SHARE} {THIRDS}",
            lambda axes: _shares(axes, credit, palette),
        )
    return drawings


def _scheme(axes: Axes, credit: Credit, palette: Palette) -> None:
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


def _correction(axes: Axes, credit: Credit, palette: Palette) -> None:
    last = credit.corrections[max(credit.corrections)]
    roles = ("chosen", "rejected", "chosen", "rejected")
    for label, values, role, dashes in zip(
        BRANCHES, last, roles, ((1, 0), (1, 0), (4, 3), (4, 3)), strict=True
    ):
        axes.plot(credit.timesteps, values, color=palette[role], dashes=dashes, label=label)
    axes.set_yscale("symlog", linthresh=SMALL_CORRECTION)
    axes.yaxis.set_major_formatter(PLAIN)
    _finish(axes, "correction")


def _convergence(axes: Axes, credit: Credit, palette: Palette) -> None:
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


def _bands(axes: Axes, credit: Credit, name: str, palette: Palette) -> None:
    """Means over the pairs of each band."""

    def mean(rows: Rows) -> Array:
        drawn = credit.sums["count"][rows].sum(0)
        total = credit.sums[name][rows].sum(0)
        return np.divide(total, drawn, out=np.full(len(drawn), np.nan), where=drawn > 0)

    _thirds(axes, credit, mean, palette)
    level = {"accuracy": 0.5, "margin": 0.0}.get(name)
    if level is not None:
        axes.axhline(level, color=palette["muted"], linewidth=1.0, dashes=(4, 3))
    _finish(axes, name)


def _shares(axes: Axes, credit: Credit, palette: Palette) -> None:
    """What each band has of the whole."""

    def share(rows: Rows) -> Array:
        total = credit.sums["gradient"][rows].sum(0)
        return 100 * total / max(total.sum(), np.finfo(np.float64).tiny)

    _thirds(axes, credit, share, palette)
    axes.set_ylim(bottom=0)
    _finish(axes, "percent of the squared gradient")


def _thirds(axes: Axes, credit: Credit, value: Callable[[Rows], Array], palette: Palette) -> None:
    """Draw a value a band, of the steps of each third of the training."""
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
