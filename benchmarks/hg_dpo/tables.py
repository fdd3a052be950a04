"""The comparison's results as tables and pictures."""

import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from PIL import Image, ImageDraw
from world import Row, distance, label

from tastemaker.storage.images import decode
from tastemaker.storage.pool import Pool

COLUMNS: dict[str, tuple[Callable[[Row], float], int]] = {
    "score": (lambda row: row["model"]["scores"]["preference"]["mean"], 2),
    "judge": (lambda row: row["model"]["scores"]["judge"]["mean"], 2),
    "distance": (distance, 1),
    "quality": (lambda row: row["model"]["quality"], 2),
    "sharpness": (lambda row: row["model"]["scores"]["sharpness"]["mean"], 1),
    "hue drift": (lambda row: row["model"]["hue_distance"], 1),
    "wins, %": (lambda row: 100 * row["model"]["scores"]["preference"]["win_rate"], 1),
    "judge: wins, %": (lambda row: 100 * row["model"]["scores"]["judge"]["win_rate"], 1),
}
PICTURED = (
    "naive",
    "easy",
    "normal",
    "hard",
    "hard + text encoder",
    "all mixed",
    "SFT",
    "Curriculum-DPO",
    "AlignProp",
)
FACES, FACE = 8, 112
MARKERS = "os^Dv<>Pp"
CURVES = {
    "rewards/accuracies": "share of pairs told apart",
    "errors/chosen": "growth of the chosen error",
    "errors/rejected": "growth of the rejected error",
}
TRAININGS = {"naive": 0, "easy": 0, "normal": 60, "hard": 120, "hard over best candidates": 120}
"""Which are drawn, and how many steps the row had behind it."""


def write_tables(folder: Path, root: Path, results: dict[str, Any]) -> None:
    """Write table.md, search.md, search.png, curves.png and faces.png.

    Args:
        folder: Where they go.
        root: Folder of the runs.
        results: The content of results.json.
    """
    (folder / "table.md").write_text(_table(results), encoding="utf-8")
    (folder / "search.md").write_text(_search(results), encoding="utf-8")
    _draw_search(results["search"], folder / "search.png")
    _draw_curves(results["table"], root / "policies", folder / "curves.png")
    _draw_faces(results["table"], root / "test", folder / "faces.png")


def _table(results: dict[str, Any]) -> str:
    head = ["row", "setting", "seeds", *COLUMNS]
    lines = [_cells(head), _cells("---" for _ in head), _cells(["base", "", "", *_base(results)])]
    for name, rows in results["table"].items():
        setting = label(results["chosen"][name])
        cells = [
            _spread([value(row) for row in rows], digits) for value, digits in COLUMNS.values()
        ]
        lines.append(_cells([name, setting, str(len(rows)), *cells]))
    entry = next(iter(_first(results)["base"]["frechet"].values()))
    floor = f"{1000 * entry['real_to_real']:.1f}"
    empty = ["" for _ in head]
    empty[0], empty[head.index("distance")] = "held-out photographs, half to half", floor
    return "\n".join([*lines, _cells(empty)]) + "\n"


def _base(results: dict[str, Any]) -> list[str]:
    """The base's cells; it has neither drift nor wins."""
    base = {"model": _first(results)["base"]}
    measured = list(COLUMNS.items())[:5]
    return [f"{value(base):.{digits}f}" for _, (value, digits) in measured] + ["", "", ""]


def _first(results: dict[str, Any]) -> Row:
    row: Row = next(iter(results["table"].values()))[0]
    return row


def _search(results: dict[str, Any]) -> str:
    lines = [
        "| row | setting | wins, % | distance | base | chosen |",
        "|---|---|---|---|---|---|",
    ]
    for name, rows in results["search"].items():
        for row in rows:
            wins = 100 * row["model"]["scores"]["preference"]["win_rate"]
            mark = "*" if row["setting"] == results["chosen"][name] else ""
            where = f"{distance(row):.1f}", f"{distance(row, 'base'):.1f}"
            lines.append(_cells([name, label(row["setting"]), f"{wins:.1f}", *where, mark]))
    return "\n".join(lines) + "\n"


def _cells(cells: Any) -> str:
    return "| " + " | ".join(cells) + " |"


def _spread(values: list[float], digits: int) -> str:
    mean = f"{statistics.fmean(values):.{digits}f}"
    return mean if len(values) < 2 else f"{mean} ± {statistics.stdev(values):.{digits}f}"


def _draw_search(search: dict[str, list[Row]], file: Path) -> None:
    """Every setting tried: win rate against distance, a colour a row."""
    figure, axes = plt.subplots(figsize=(9.5, 4.6), layout="constrained")
    colours = plt.get_cmap("tab20")
    for number, (name, rows) in enumerate(search.items()):
        x = [distance(row) for row in rows]
        y = [100 * row["model"]["scores"]["preference"]["win_rate"] for row in rows]
        marker = MARKERS[number % len(MARKERS)]
        axes.plot(x, y, marker, markersize=5, color=colours(number % 20), label=name)
    base = next(iter(search.values()))[0]
    axes.axvline(distance(base, "base"), color="#666a73", linewidth=1, dashes=(4, 3))
    axes.axhline(50, color="#666a73", linewidth=1, dashes=(4, 3))
    axes.set_xlabel("Frechet distance to the training portraits, training scorer's features x 1000")
    axes.set_ylabel("images preferred to the base's, %")
    figure.legend(loc="outside right center", frameon=False, fontsize=8)
    figure.savefig(file, dpi=110)
    plt.close(figure)


def _draw_curves(table: dict[str, list[Row]], policies: Path, file: Path) -> None:
    """How well pairs are told apart, and how both errors grow, in the trainings of seed 0."""
    figure, panels = plt.subplots(1, len(CURVES), figsize=(12, 3.6), layout="constrained")
    for axes, (key, title) in zip(panels, CURVES.items(), strict=True):
        for name, begins in TRAININGS.items():
            lines = (policies / table[name][0]["pool"] / "metrics.jsonl").read_text().splitlines()
            values = [json.loads(line)[key] for line in lines]
            smooth = [statistics.fmean(values[max(i - 9, 0) : i + 1]) for i in range(len(values))]
            axes.plot(range(begins, begins + len(smooth)), smooth, linewidth=1.3, label=name)
        axes.set_title(title, fontsize=9)
        axes.set_xlabel("optimizer step of the row")
    panels[0].legend(frameon=False, fontsize=8)
    figure.savefig(file, dpi=110)
    plt.close(figure)


def _draw_faces(table: dict[str, list[Row]], judged: Path, file: Path) -> None:
    """The same prompts and seeds down the columns, one column a row of the table."""
    rows = {name: table[name][0]["pool"] for name in PICTURED}
    columns = {"base": "base", **rows}
    left, top = 0, 20
    sheet = Image.new("RGB", (left + FACE * len(columns), top + FACE * FACES), "white")
    draw = ImageDraw.Draw(sheet)
    for place, (name, folder) in enumerate(columns.items()):
        x = left + place * FACE
        draw.text((x + 4, 5), name, fill="black")
        pool = Pool(judged / folder)
        pictures = pool.candidates(("candidate_id", "image")).to_pylist()
        step = len(pictures) // FACES
        for line, row in enumerate(pictures[::step][:FACES]):
            face = decode(row["image"]["bytes"], row["candidate_id"]).resize(
                (FACE - 4, FACE - 4), Image.Resampling.NEAREST
            )
            sheet.paste(face, (x, top + line * FACE))
    sheet.save(file, optimize=True)
