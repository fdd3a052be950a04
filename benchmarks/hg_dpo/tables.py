"""Every printed table and figure of the comparison from the measured images.

    python benchmarks/hg_dpo/tables.py                       # from scores.parquet
    python benchmarks/hg_dpo/tables.py --runs runs/hg_dpo    # from a run, finished or not

Writes claims (into README.md), table.md, search.md, map.md and front.png beside this file; from a
run first scores.parquet, and faces.png.
"""

import argparse
import contextlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
from claims import JUDGE, Measured, as_table, verdict
from figures import Images, Interval, column, distance, diversity, faces, mean, obeyed, wins
from PIL import Image, ImageDraw
from results import OTHERS, PHOTOGRAPHS, SCORES, Choices, Model, NotMeasured, Results, keep
from rows import MAIN, ROWS, SMALL, Size, settings

from tastemaker.storage.files import write_text
from tastemaker.storage.images import decode
from tastemaker.storage.parquet import read_table
from tastemaker.storage.pool import Pool

HERE = Path(__file__).parent
BEGIN, END = "<!-- claims -->\n", "<!-- end of claims -->"
PORTRAITS, SIDE = 8, 112

Cell = Callable[[Sequence[Images], Sequence[Images]], Interval]
COLUMNS: dict[str, tuple[Cell, int]] = {
    "judge: gain": (JUDGE, 2),
    "judge: wins, %": (wins, 0),
    "training scorer: gain": (lambda m, b: mean(m, b, column("preference")), 2),
    "obeyed, %": (lambda m, b: mean(m, None, obeyed), 1),
    "faces, %": (lambda m, b: mean(m, None, faces), 1),
    "distance": (lambda m, b: distance(m, None), 1),
    "distance, judge's features": (lambda m, b: distance(m, None, "judge_features"), 2),
    "diversity: gain": (diversity, 1),
    "sharpness": (lambda m, b: mean(m, None, column("sharpness")), 1),
    "without the prompt: gain": (lambda m, b: mean(m, b, column("plain")), 2),
}


def main() -> None:
    """Write the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=Path, help="--output of compare.py; default: what is kept")
    parser.add_argument("--output", type=Path, default=HERE, help="folder of the tables")
    parser.add_argument("--small", action="store_true", help="the runs are those of --small")
    options = parser.parse_args()
    output: Path = options.output
    if options.runs:
        keep(options.runs, output / SCORES.name)
    measured = opened(output / SCORES.name, SMALL if options.small else Size())
    for name, text in texts(measured).items():
        write_text(output / name, text)
    if (output / "README.md").is_file():
        readme = (output / "README.md").read_text(encoding="utf-8")
        write_text(output / "README.md", with_claims(readme, as_table(measured)))
    draw_front(measured, output / "front.png")
    if options.runs:
        draw_faces(measured, options.runs / "drawn", output / "faces.png")


def opened(file: Path, size: Size) -> Measured:
    """Open a table of measured images."""
    results = Results(read_table(file))
    return Measured(results, Choices(results.score, size))


def texts(measured: Measured) -> dict[str, str]:
    """Return the tables by the name of their file."""
    return {
        "table.md": as_rows(measured),
        "search.md": searched(measured),
        "map.md": as_map(measured),
    }


def with_claims(readme: str, table: str) -> str:
    """Replace the table of claims in the README."""
    before, _, rest = readme.partition(BEGIN)
    return before + BEGIN + table + END + rest.partition(END)[2]


def as_rows(measured: Measured) -> str:
    """The main table: every row at every length, at its own guidance."""
    head = ["row", "steps", "setting", "guidance", "seeds", *COLUMNS]
    lines = [_cells(head), _cells("---" for _ in head)]
    base = measured.base()
    for name in (PHOTOGRAPHS, OTHERS):
        images = measured.results.images(Model(name))
        against = base.at(images.columns["photograph"])
        lines.append(_cells([name, "", "", "", "", *_values([images], against, name)]))
    about = ["base", "", "", f"{measured.choices.base.guidance:g}", ""]
    lines.append(_cells([*about, *_values([base], base, "base")]))
    for steps in measured.choices.size.lengths:
        for row in ROWS:
            if models := measured.models(row, steps):
                images = [measured.results.images(model) for model in models]
                about = [row, str(steps), _setting(models[0]), f"{models[0].guidance:g}"]
                lines.append(_cells([*about, str(len(models)), *_values(images, base, row)]))
    return "\n".join(lines) + "\n"


def _values(images: list[Images], base: Images, name: str) -> list[str]:
    """Cells of a row; the base gains nothing on itself, photographs have no distance to them."""
    cells = []
    for title, (measure, digits) in COLUMNS.items():
        own = name == "base" and ("gain" in title or "wins" in title)
        empty = own or (name == PHOTOGRAPHS and "distance" in title)
        cells.append("" if empty else _cell(measure(images, [base]), digits))
    return cells


def searched(measured: Measured) -> str:
    """Every setting and guidance that was tried, with the mean that chose; whole searches alone."""
    choices, lines = measured.choices, ["| row | steps | setting | guidance | score | chosen |"]
    lines.append("|---|---|---|---|---|---|")
    for scale in choices.size.scales:
        model = Model("base", guidance=scale)
        lines.append(_tried(choices, model, model == choices.base))
    for row in ROWS:
        with contextlib.suppress(NotMeasured):
            lines += _by_setting(choices, row)
        for steps in choices.size.lengths:
            with contextlib.suppress(NotMeasured):
                chosen = choices.chosen(row, steps)
                models = [replace(chosen, guidance=scale) for scale in choices.size.scales]
                lines += [_tried(choices, model, model == chosen) for model in models]
    return "\n".join(dict.fromkeys(lines)) + "\n"


def _by_setting(choices: Choices, row: str) -> list[str]:
    """Lines of a row's own search, at the base's guidance."""
    if ROWS[row].like is not None:
        return []
    best, steps = choices.setting(row), choices.size.lengths[1]
    return [
        _tried(choices, choices.model(row, steps, each, choices.base.guidance), each == best)
        for each in settings(ROWS[row], choices.size)
    ]


def _tried(choices: Choices, model: Model, best: bool) -> str:
    about = [model.row, str(model.steps or ""), _setting(model), f"{model.guidance:g}"]
    return _cells([*about, f"{choices.score(model):.3f}", "*" if best else ""])


def as_map(measured: Measured) -> str:
    """When to use the curriculum: against naive, cell by cell, first seed."""
    head = ["steps", "rate", "candidates' guidance", "naive – base", "curriculum – base"]
    head += ["curriculum – naive", "judge: curriculum – naive", "nearer", "judge prefers"]
    lines = [_cells(head), _cells("---" for _ in head)]
    choices, base = measured.choices, [measured.base()]
    for steps in choices.size.lengths:
        for rate, pool in [(rate, None) for rate in choices.size.rates] + [(None, 1.0)]:
            try:
                cell = [_at(measured, row, steps, rate, pool) for row in ("naive", "curriculum")]
                naive, curriculum = [[measured.results.images(model)] for model in cell]
            except NotMeasured:
                continue
            far, score = distance(curriculum, naive), JUDGE(curriculum, naive)
            values = [distance(naive, base), distance(curriculum, base), far]
            lines.append(
                _cells(
                    [
                        str(steps),
                        " / ".join(dict.fromkeys(f"{model.rate:g}" for model in cell)),
                        f"{cell[0].pool:g}",
                        *(_cell(each, 1) for each in values),
                        _cell(score, 2),
                        _winner(far, -1),
                        _winner(score, 1),
                    ]
                )
            )
    return "\n".join(lines) + "\n"


def _at(measured: Measured, row: str, steps: int, rate: float | None, pool: float | None) -> Model:
    chosen = measured.choices.chosen(row, steps)
    return replace(chosen, rate=rate or chosen.rate, pool=pool or chosen.pool)


def _winner(found: Interval, sign: int) -> str:
    return {"shown": "curriculum", "contradicted": "naive"}.get(verdict(found, sign), "neither")


def draw_front(measured: Measured, file: Path) -> None:
    """Adherence and the judge's score against the distance, a line per row over guidance."""
    figure, panels = plt.subplots(1, 2, figsize=(11, 4.6), layout="constrained")
    choices, base = measured.choices, measured.base()
    for name in ("base", *MAIN):
        points = []
        for scale in choices.size.scales:
            try:
                first = (
                    choices.base
                    if name == "base"
                    else choices.chosen(name, choices.size.lengths[1])
                )
                images = measured.results.images(replace(first, guidance=scale))
            except NotMeasured:
                continue
            points.append((images, scale))
        _line(panels, name, points, base)
    other = measured.results.images(Model(OTHERS))
    _line(panels, OTHERS, [(other, 0.0)], base.at(other.columns["photograph"]))
    for axes, title in zip(panels, ("caption obeyed, %", "judge: gain over the base"), strict=True):
        axes.set_xlabel("kernel distance to the photographs x 1000, EfficientNet-lite0")
        axes.set_ylabel(title)
    panels[0].legend(frameon=False, fontsize=8)
    figure.savefig(file, dpi=110)
    plt.close(figure)


def _line(panels: Sequence, name: str, points: list, base: Images) -> None:
    """One row in both panels; the smallest marker is the lowest guidance."""
    for axes, read in zip(panels, (lambda m: mean([m], None, obeyed), None), strict=True):
        x = [distance([images], None).value for images, _ in points]
        y = [(read(m) if read else JUDGE([m], [base])).value for m, _ in points]
        line = axes.plot(x, y, linewidth=1, label=name)[0]
        sizes = [12 + 14 * place for place in range(len(points))]
        axes.scatter(x, y, sizes, color=line.get_color())


def draw_faces(measured: Measured, drawn: Path, file: Path) -> None:
    """Equal captions and seeds down the columns, a column per main row at the longest length.

    Rows that were measured elsewhere, of which there are no images, are left out.
    """
    steps = measured.choices.size.lengths[-1]
    found = {row: measured.models(row, steps) for row in ("base", *MAIN)}
    models = {
        row: of[0] for row, of in found.items() if of and (drawn / f"test-{of[0].name}").is_dir()
    }
    if not models:
        return
    sheet = Image.new("RGB", (SIDE * len(models), 20 + SIDE * PORTRAITS), "white")
    draw = ImageDraw.Draw(sheet)
    for place, (name, model) in enumerate(models.items()):
        draw.text((place * SIDE + 4, 5), name, fill="black")
        rows = Pool(drawn / f"test-{model.name}").candidates(("candidate_id", "image")).to_pylist()
        for line, row in enumerate(rows[:: max(len(rows) // PORTRAITS, 1)][:PORTRAITS]):
            face = decode(row["image"]["bytes"], row["candidate_id"])
            face = face.resize((SIDE - 4, SIDE - 4), Image.Resampling.BICUBIC)
            sheet.paste(face, (place * SIDE, 20 + line * SIDE))
    sheet.save(file, optimize=True)


def _setting(model: Model) -> str:
    if not model.rate:
        return ""
    return f"{model.rate:g}, beta {model.beta}" if model.beta else f"{model.rate:g}"


def _cell(found: Interval, digits: int) -> str:
    value, low, high = (f"{each:.{digits}f}" for each in found)
    return f"{value} [{low}, {high}]"


def _cells(cells) -> str:
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    main()
