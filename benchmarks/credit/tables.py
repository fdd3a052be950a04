"""Tables and figures of README.md, computed from the scores of every image.

    python benchmarks/credit/tables.py                        # from the committed scores.parquet
    python benchmarks/credit/tables.py --output runs/credit   # gathers a comparison's scores first

Of a comparison that is not finished, rows that are missing are left out, and a row is compared on
the pools that it has.
"""

import argparse
import re
from collections.abc import Callable
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from compare import BANDS, SCHEMES
from scores import OBEYED, Pools, Scores, equal_distance, gathered, interval

from tastemaker.metrics.clusters import MeanInterval
from tastemaker.storage.parquet import read_table, write_table

HERE = Path(__file__).parent
SCORES = HERE / "scores.parquet"
TWINS = {"noise": "predicts noise", "v": "predicts v"}


def shown(found: MeanInterval, column: str) -> str:
    """Format a mean with its interval; shares in points."""
    factor, digits = (100, 1) if column == OBEYED else (1, 2)
    mean, low, high = (f"{factor * each:+.{digits}f}" for each in (found[0], *found[2:]))
    return mean if np.isnan(found.low) else f"{mean} [{low}, {high}]"


def header(*titles: str) -> list[str]:
    """First two lines of a table."""
    return [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]


def rows_table(scores: Scores) -> list[str]:
    """The rows on test prompts, as gains over the base at its own best guidance."""
    columns = (OBEYED, "examiner", "judge", "checker")
    titles = ("twin", "scheme", "beta", "guidance", "pools", OBEYED, "gain, points", *columns[1:])
    lines = header(*titles, "distance")
    for twin in TWINS:
        base = scores.tested(twin, "base")
        if base:
            share = 100 * interval({pool: cell[OBEYED] for pool, cell in base.items()}).mean
            scale = scores.chosen(twin, "base")[1]
            lines.append(f"| {twin} | base | | {scale:g} | {len(base)} | {share:.1f} % | | | | | |")
        for scheme in (scheme for of, scheme in scores.rows() if of == twin):
            tested, (beta, scale) = scores.tested(twin, scheme), scores.chosen(twin, scheme)
            share = 100 * interval({pool: cell[OBEYED] for pool, cell in tested.items()}).mean
            change = interval({pool: cell["distance"] for pool, cell in tested.items()}).mean
            gains = [shown(interval(scores.gain(twin, scheme, "base", c)), c) for c in columns]
            cells = (twin, scheme, beta, f"{scale:g}", len(tested), f"{share:.1f} %", *gains)
            lines.append("| " + " | ".join(map(str, cells)) + f" | {change:.1f} |")
    return lines


def contrasts_table(scores: Scores) -> list[str]:
    """The rows against uniform: on test prompts, and on validation prompts at equal distance."""
    titles = ("twin", "scheme", "obeyed, points", "examiner", "judge")
    lines = header(*titles, "at uniform's distance: points", "examiner")
    for twin, scheme in scores.rows():
        if scheme == "uniform" or not scores.tested(twin, "uniform"):
            continue
        cells = [
            shown(interval(scores.gain(twin, scheme, "uniform", column)), column)
            for column in (OBEYED, "examiner", "judge")
        ]
        for column in (OBEYED, "examiner"):
            found = equal_distance(scores, twin, scheme, column)
            cells.append(shown(found, column) if found else "not reached")
        lines.append(f"| {twin} | {scheme} | " + " | ".join(cells) + " |")
    return lines


def bands_table(scores: Scores) -> list[str]:
    """Gain over the base of training on one tenth of the timesteps."""
    columns = [(twin, column) for twin in TWINS for column in (OBEYED, "examiner")]
    titles = [f"{twin}: {'points' if c == OBEYED else c}" for twin, c in columns]
    lines = header("timesteps", *titles)
    for band in (*BANDS, "uniform"):
        cells = []
        for twin, column in columns:
            found = scores.gain(twin, band, "base", column)
            cells.append(shown(interval(found), column) if found else "")
        if any(cells):
            lines.append(f"| {band} | " + " | ".join(cells) + " |")
    return lines


def compared(first: str, second: str) -> Callable[[Scores, str], Pools]:
    """Return a function that gives the points by which a row obeys more than another."""
    return lambda scores, twin: scores.gain(twin, first, second, OBEYED)


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


def filled(text: str, scores: Scores) -> str:
    """Replace what lies between `<!-- NAME -->` and `<!-- end -->` by that table and its figure."""

    def table(match: re.Match[str]) -> str:
        lines = TABLES[match[1]](scores)
        if figure := FIGURES.get(match[1]):
            lines += ["", f"![{match[1]}]({figure})"]
        return f"<!-- {match[1]} -->\n" + "\n".join(lines) + "\n<!-- end -->"

    return re.sub(rf"<!-- ({'|'.join(TABLES)}) -->\n.*?<!-- end -->", table, text, flags=re.DOTALL)


def draw_bands(scores: Scores) -> None:
    """Gain of each tenth of the timesteps on both twins, dashed that of all of them."""
    figure, axes = plt.subplots(figsize=(7, 3.6), layout="constrained")
    for twin, colour in zip(TWINS, ("#3f5bd4", "#c2571a"), strict=True):
        found = {
            place: interval(gain)
            for place, band in enumerate(BANDS)
            if (gain := scores.gain(twin, band, "base", OBEYED))
        }
        means = [100 * each.mean for each in found.values()]
        reach = [100 * (each.high - each.mean) for each in found.values()]
        axes.errorbar([*found], means, reach, fmt="o-", color=colour, label=TWINS[twin])
        if level := scores.gain(twin, "uniform", "base", OBEYED):
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
        fronts = {scheme: scores.fronts(twin, scheme) for scheme in ("base", *SCHEMES)}
        for scheme in (scheme for scheme in SCHEMES if fronts["base"] and fronts[scheme]):
            base = fronts["base"][0][1][OBEYED].mean()
            cells = [cell for _, cell in fronts[scheme].values()]
            points = [(c["distance"].mean(), 100 * (c[OBEYED].mean() - base)) for c in cells]
            axes.plot(*zip(*sorted(points), strict=True), "o-", markersize=4, label=scheme)
        axes.plot([0], [0], "k*", markersize=11)
        axes.set_title(f"twin that {said}")
        axes.set_xlabel("distance to the base's images, grey levels")
    panels[0].set_ylabel("obeyed: points above the base")
    panels[1].legend(frameon=False, fontsize=8)
    figure.savefig(HERE / FIGURES["contrasts"], dpi=110)


def main() -> None:
    """Write the tables into README.md, and draw the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, help="folder of a comparison's runs")
    output = parser.parse_args().output
    if output:
        write_table(SCORES, gathered(output))
    scores, readme = Scores(read_table(SCORES)), HERE / "README.md"
    readme.write_text(filled(readme.read_text(encoding="utf-8"), scores), encoding="utf-8")
    draw_bands(scores)
    draw_fronts(scores)


if __name__ == "__main__":
    main()
