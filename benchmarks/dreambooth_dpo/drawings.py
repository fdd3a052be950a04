"""The comparison's results as a table and pictures."""

import statistics
from itertools import compress
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from agreement import POOL, agreement
from characters import characters
from PIL import Image, ImageDraw
from rules import AXES, BALANCED, IS, JUDGE, ROWS, TS

from tastemaker.datasets.subjects import photographs
from tastemaker.pairing.angle import Difference, differences
from tastemaker.storage.groups import Groups
from tastemaker.storage.images import decode
from tastemaker.storage.pool import Pool

Results = dict[str, dict[str, Any]]
PICTURED = ("fidelity alone", "prompt alone", "angle 0 to 45", "angle 20 to 70", "angle 45 to 90")
PROMPTS, SIDE = 4, 96


def write_results(
    folder: Path, root: Path, results: Results, before: dict[str, dict[str, Any]]
) -> None:
    """Write table.md, characters.md, agreement.md, plane.png, clouds.png and faces.png.

    Args:
        folder: Where they go.
        root: Folder of the runs.
        results: Figures by character and seed, and by row.
        before: Scores of the model that was personalised, by character.
    """
    (folder / "table.md").write_text(_table(results, before), encoding="utf-8")
    (folder / "characters.md").write_text(characters(root, list(results)), encoding="utf-8")
    firsts = [root / name for name in results if name.endswith("-s0")]
    (folder / "agreement.md").write_text(agreement(firsts), encoding="utf-8")
    _draw_plane(results, folder / "plane.png")
    _draw_clouds(firsts, folder / "clouds.png")
    _draw_faces(root, results, folder / "faces.png")


def gains(results: Results, name: str, axis: str) -> list[float]:
    """A row's score minus the personalised model's, times 1000, one a character and seed."""
    rows = [each[name] for each in results.values() if name in each]
    return [1000 * (row["model"][axis]["mean"] - row["base"][axis]["mean"]) for row in rows]


def _table(results: Results, before: dict[str, dict[str, Any]]) -> str:
    lines = [
        "| row | pairs | IS | TS | judge's IS | judge's TS | both up by the judge |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, models in (
        ("nano (cosines)", list(before.values())),
        (
            "personalised (cosines)",
            [next(iter(each.values()))["base"] for each in results.values()],
        ),
    ):
        means = [statistics.fmean(scores[axis]["mean"] for scores in models) for axis in AXES]
        lines.append(f"| {name} | | {' | '.join(f'{mean:.3f}' for mean in means)} | |")
    for name in ROWS:
        found = [gains(results, name, axis) for axis in AXES]
        pairs = statistics.fmean(each[name]["pairs"] for each in results.values() if name in each)
        both = sum(a > 0 and b > 0 for a, b in zip(found[2], found[3], strict=True))
        cells = [
            f"{statistics.fmean(values):+.1f} ± {error(results, name, axis):.1f}"
            for values, axis in zip(found, AXES, strict=True)
        ]
        lines.append(f"| {name} | {pairs:.0f} | {' | '.join(cells)} | {both} of {len(found[0])} |")
    return "\n".join(lines) + "\n"


def error(results: Results, name: str, axis: str) -> float:
    """Standard error over characters: the seeds of one share its pictures and prompts."""
    runs: dict[str, list[str]] = {}
    for run in results:
        runs.setdefault(run.rpartition("-s")[0], []).append(run)
    means = [
        statistics.fmean(gains({run: results[run] for run in same}, name, axis))
        for same in runs.values()
    ]
    return float(statistics.stdev(means) / len(means) ** 0.5)


def _draw_plane(results: Results, file: Path) -> None:
    """Every row's gain on both axes, by the scorers that chose and by the judge."""
    figure, panels = plt.subplots(1, 2, figsize=(12, 4.8), layout="constrained")
    colours = plt.get_cmap("tab20")
    for axes, (x, y), title in zip(
        panels, (AXES[:2], AXES[2:]), ("the scorers that chose", "the judge"), strict=True
    ):
        axes.axhline(0, color="#666a73", linewidth=0.8)
        axes.axvline(0, color="#666a73", linewidth=0.8)
        for number, name in enumerate(ROWS):
            across, up = gains(results, name, x), gains(results, name, y)
            axes.errorbar(
                statistics.fmean(across),
                statistics.fmean(up),
                error(results, name, y),
                error(results, name, x),
                fmt="o" if name.startswith("angle") else "s",
                color=colours(number),
                markersize=5,
                linewidth=0.8,
                label=f"{number + 1} {name}",
            )
            place = statistics.fmean(across), statistics.fmean(up)
            axes.annotate(str(number + 1), place, (4, 3), textcoords="offset points", fontsize=8)
        axes.plot([0], [0], "k*", markersize=11)
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("fidelity: gain in IS x 1000")
        axes.set_ylabel("prompt: gain in TS x 1000")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", frameon=False, fontsize=8)
    figure.savefig(file, dpi=110)
    plt.close(figure)


def _draw_clouds(folders: list[Path], file: Path) -> None:
    """All ordered pairs of each character's candidates, and those that the window keeps.

    Above by the scorers that chose, below the same pairs by the judge.
    """
    figure, panels = plt.subplots(
        2, len(folders), figsize=(12, 6.4), layout="constrained", sharex=True, sharey=True
    )
    for column, folder in enumerate(folders):
        clouds: list[list[Difference]] = [[], []]
        for group in Groups(Pool(folder / "pools" / POOL)):
            for cloud, axes in zip(clouds, ((IS, TS), JUDGE), strict=True):
                cloud += differences(group, *axes, zscored=True)
        kept = [
            BALANCED["low"] <= each.angle <= BALANCED["high"] and each.d_ts > 0
            for each in clouds[0]
        ]
        for panel, cloud in zip(panels[:, column], clouds, strict=True):
            for part, colour in ((cloud, "#b9bec9"), (compress(cloud, kept), "#c2571a")):
                points = [(each.d_is, each.d_ts) for each in part]
                panel.plot(*zip(*points, strict=True), ".", markersize=1.2, color=colour)
            panel.axhline(0, color="#666a73", linewidth=0.6)
            panel.axvline(0, color="#666a73", linewidth=0.6)
        name = folder.name.removesuffix("-s0")
        panels[0, column].set_title(f"{name}: {sum(kept)} of {len(kept)}", fontsize=9)
        panels[1, column].set_xlabel("dIS, in its spread")
    panels[0, 0].set_ylabel("the scorers: dTS, in its spread")
    panels[1, 0].set_ylabel("the judge: dTS, in its spread")
    figure.savefig(file, dpi=110)
    plt.close(figure)


def _draw_faces(root: Path, results: Results, file: Path) -> None:
    """A photograph of each character, then the same prompts and seeds down the columns."""
    firsts = [name for name in results if name.endswith("-s0")]
    head, text = 18, 330
    columns = ("subject", "personalised", *PICTURED)
    height = head + len(firsts) * PROMPTS * SIDE
    sheet = Image.new("RGB", (text + len(columns) * SIDE, height), "white")
    draw = ImageDraw.Draw(sheet)
    for place, column in enumerate(columns):
        draw.text((text + place * SIDE + 3, 4), column.replace("fidelity", "fid."), fill="black")
    for line, name in enumerate(firsts):
        photograph = photographs(f"nano_{name.removesuffix('-s0')}")[0]
        pools = ["base", *(results[name][each]["pool"] for each in PICTURED)]
        for column, pool in enumerate(pools, 1):
            rows = Pool(root / name / "judged" / pool).candidates(
                ("candidate_id", "prompt", "image")
            )
            pictures = rows.to_pylist()
            for number, row in enumerate(pictures[:: len(pictures) // PROMPTS][:PROMPTS]):
                y = head + (line * PROMPTS + number) * SIDE
                face = decode(row["image"]["bytes"], row["candidate_id"])
                sheet.paste(_enlarged(face), (text + column * SIDE, y))
                if column == 1:
                    draw.text((4, y + SIDE // 2 - 6), row["prompt"], fill="black")
                    sheet.paste(_enlarged(photograph), (text, y))
    sheet.save(file, optimize=True)


def _enlarged(picture: Image.Image) -> Image.Image:
    return picture.resize((SIDE - 3, SIDE - 3), Image.Resampling.NEAREST)
