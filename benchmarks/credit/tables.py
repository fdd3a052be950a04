"""Tables and figures of README.md, computed from the scores of every image.

    python benchmarks/credit/tables.py                        # from the committed scores.parquet
    python benchmarks/credit/tables.py --output runs/credit   # gathers a comparison's scores first

Of a comparison that is not finished, rows that are missing are left out, and a row is compared on
the pools that it has.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import matplotlib.pyplot as plt
from compare import BANDS, SCHEMES, SCORES, SIZES, Credit
from comparison import options
from gains import OBEYED, Pools, Scores, filled, header, refill, shown
from scores import equal_distance, fronts, interval, opened, rows

from tastemaker.metrics.clusters import MeanInterval

HERE = Path(__file__).parent
TWINS = {"noise": "predicts noise", "v": "predicts v"}


def rows_table(scores: Scores) -> list[str]:
    """The rows on test prompts, as gains over the base at its own best guidance."""
    columns = (OBEYED, "examiner", "judge", "checker")
    titles = ("twin", "scheme", "beta", "guidance", "pools", OBEYED, "gain, points", *columns[1:])
    lines = header(*titles, "distance")
    for twin in TWINS:
        of_twin = [row for row in rows(scores) if row[0] == twin]
        for row in [(twin, "base"), *of_twin] if scores.tested((twin, "base")) else of_twin:
            tested, (policy, scale) = scores.tested(row), scores.chosen(row)
            share = 100 * interval({pool: cell[OBEYED] for pool, cell in tested.items()}).mean
            cells = [*row, "", f"{scale:g}", len(tested), f"{share:.1f} %", *("",) * 5]
            if row[1] != "base":
                change = interval({pool: cell["distance"] for pool, cell in tested.items()}).mean
                gains = (scores.gain(row, (twin, "base"), column) for column in columns)
                cells[2] = f"{policy.beta:g}"
                cells[6:] = [shown(interval(g), c) for g, c in zip(gains, columns, strict=True)]
                cells.append(f"{change:.1f}")
            lines.append(f"| {' | '.join(map(str, cells))} |")
    return lines


def contrasts_table(scores: Scores) -> list[str]:
    """The rows against uniform: on test prompts, and on validation prompts at equal distance."""
    titles = ("twin", "scheme", "obeyed, points", "examiner", "judge")
    lines = header(*titles, "at uniform's distance: points", "examiner")
    for row in rows(scores):
        uniform = (row[0], "uniform")
        if row == uniform or not scores.tested(uniform):
            continue
        cells = [
            shown(interval(scores.gain(row, uniform, column)), column)
            for column in (OBEYED, "examiner", "judge")
        ]
        for column in (OBEYED, "examiner"):
            found = equal_distance(scores, row, column)
            cells.append(shown(found, column) if found else "not reached")
        lines.append(f"| {' | '.join([*row, *cells])} |")
    return lines


def bands_table(scores: Scores) -> list[str]:
    """Gain over the base of training on one tenth of the timesteps."""
    columns = [(twin, column) for twin in TWINS for column in (OBEYED, "examiner")]
    titles = [f"{twin}: {'points' if c == OBEYED else c}" for twin, c in columns]
    lines = header("timesteps", *titles)
    for band in (*BANDS, "uniform"):
        cells = []
        for twin, column in columns:
            found = scores.gain((twin, band), (twin, "base"), column)
            cells.append(shown(interval(found), column) if found else "")
        if any(cells):
            lines.append(f"| {band} | " + " | ".join(cells) + " |")
    return lines


def compared(first: str, second: str) -> Callable[[Scores, str], Pools]:
    """Return a function that gives the points by which a row obeys more than another."""
    return lambda scores, twin: scores.gain((twin, first), (twin, second), OBEYED)


CLAIMS = {
    "The window 200 to 700 beats all timesteps": compared("window 200-700", "uniform"),
    "The first tenth alone beats the base": compared("0-100", "base"),
    "300 to 400 alone beats the base": compared("300-400", "base"),
    "The last tenth alone falls below the base": compared("base", "900-1000"),
    "DDE beats the uniform loss": compared("dde", "uniform"),
    "DDE's single shot beats the uniform loss": compared("dde_single", "uniform"),
    "The single shot is at least as good as DDE": compared("dde_single", "dde"),
    "DDE's stepwise part alone falls below the base": compared("base", "dde_step"),
    "DDE beats the discount": compared("dde", "discounted"),
    "(ours) The clip of kappa helps DDE": compared("dde", "dde, no clip"),
    "(ours) The clip of kappa helps the single shot": compared("dde_single", "dde_single, no clip"),
    "(ours) Kept noise beats drawn noise": compared("uniform, kept noise", "uniform"),
    "DDE beats D3PO": compared("dde", "d3po"),
    "(ours) The base's channel statistics (LAN) help the uniform loss": compared(
        "uniform, LAN", "uniform"
    ),
}
"""Claims, each as the difference that is above 0 where it holds."""


def claims_table(scores: Scores) -> list[str]:
    """The claims with a verdict per twin: which side of 0 the interval lies on."""
    lines = header("claim", *(f"twin that {said}" for said in TWINS.values()))
    for claim, points in CLAIMS.items():
        cells = []
        for twin in TWINS:
            found = points(scores, twin)
            cells.append(verdict(interval(found)) if found else "not measured")
        lines.append(f"| {claim} | " + " | ".join(cells) + " |")
    return lines


def verdict(found: MeanInterval) -> str:
    """Return shown, contradicted or not shown, with the effect in points."""
    word = "shown" if found.low > 0 else "contradicted" if found.high < 0 else "not shown"
    return f"{word}: {shown(found, OBEYED)}"


TABLES = {
    "claims": claims_table,
    "rows": rows_table,
    "contrasts": contrasts_table,
    "bands": bands_table,
}


FIGURES = {"contrasts": "fronts.png", "bands": "tenths.png"}
"""Figures below tables."""


def with_tables(text: str, scores: Scores) -> str:
    """Fill in the tables of a page, with their figures."""

    def lines(name: str) -> list[str]:
        figure = ["", f"![{name}]({FIGURES[name]})"] if name in FIGURES else []
        return TABLES[name](scores) + figure

    return filled(text, {name: partial(lines, name) for name in TABLES})


def draw_bands(scores: Scores) -> None:
    """Gain of each tenth of the timesteps on both twins, dashed that of all of them."""
    figure, axes = plt.subplots(figsize=(7, 3.6), layout="constrained")
    for twin, colour in zip(TWINS, ("#3f5bd4", "#c2571a"), strict=True):
        found = {
            place: interval(gain)
            for place, band in enumerate(BANDS)
            if (gain := scores.gain((twin, band), (twin, "base"), OBEYED))
        }
        means = [100 * each.mean for each in found.values()]
        reach = [100 * (each.high - each.mean) for each in found.values()]
        axes.errorbar([*found], means, reach, fmt="o-", color=colour, label=TWINS[twin])
        if level := scores.gain((twin, "uniform"), (twin, "base"), OBEYED):
            axes.axhline(100 * interval(level).mean, color=colour, dashes=(4, 3), linewidth=1)
    axes.axhline(0, color="#666a73", linewidth=1)
    axes.set_xticks(range(len(BANDS)), list(BANDS), rotation=45)
    axes.set_xlabel("timesteps trained on (dashed: all of them)")
    axes.set_ylabel("obeyed: points above the base")
    axes.legend(frameon=False)
    figure.savefig(HERE / FIGURES["bands"], dpi=110)


def draw_fronts(scores: Scores) -> None:
    """Share obeyed above the base against distance on validation prompts, a line per scheme."""
    figure, panels = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained", sharey=True)
    for (twin, said), axes in zip(TWINS.items(), panels, strict=True):
        found = {name: [*fronts(scores, (twin, name)).values()] for name in ("base", *SCHEMES)}
        for scheme in (name for name in SCHEMES if found["base"] and found[name]):
            base = found["base"][0][OBEYED].mean()
            points = [
                (cell["distance"].mean(), 100 * (cell[OBEYED].mean() - base))
                for cell in found[scheme]
            ]
            axes.plot(*zip(*sorted(points), strict=True), "o-", markersize=4, label=scheme)
        axes.plot([0], [0], "k*", markersize=11)
        axes.set_title(f"twin that {said}")
        axes.set_xlabel("distance to the base's images, grey levels")
    panels[0].set_ylabel("obeyed: points above the base")
    panels[1].legend(frameon=False, fontsize=8)
    figure.savefig(HERE / FIGURES["contrasts"], dpi=110)


def main() -> None:
    """Write the tables into README.md, and draw the figures."""
    if output := options(__doc__, smoke=False).output:
        Credit(output, SIZES).commit(SCORES)
    scores = opened(SCORES)
    refill(HERE / "README.md", partial(with_tables, scores=scores))
    draw_bands(scores)
    draw_fronts(scores)


if __name__ == "__main__":
    main()
