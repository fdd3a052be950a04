"""Draw front.png from the committed scores, and faces.png from the images of a run.

python benchmarks/dreambooth_dpo/pictures.py --output runs/dreambooth_dpo
"""

import argparse
import statistics
from pathlib import Path

import matplotlib.pyplot as plt
from PIL import Image, ImageDraw
from rules import LENGTHS, PERSONALISED, ROWS, SCALES, slug
from stages import images
from subjects import FOLDER, SUBJECTS
from tables import HERE, Scores, by_row

from tastemaker.storage.parquet import read_table

PICTURED = (
    PERSONALISED,
    f"{PERSONALISED}, LoRA x {SCALES[0]}",
    "fidelity alone",
    "prompt alone",
    "weighted, lambda .5",
    "angle 20 to 70",
)
PROMPTS, FACE = 3, 160
LINES = {
    "LoRA scale": [
        f"{PERSONALISED}, LoRA x {each}" if each != 1 else PERSONALISED
        for each in sorted((1, *SCALES))
    ],
    "length": [
        f"{PERSONALISED}, {each} steps" if f"{PERSONALISED}, {each} steps" in ROWS else PERSONALISED
        for each in LENGTHS
    ],
}
"""Rows that a front joins, in its order."""


def main() -> None:
    """Draw both pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True, help="folder of the runs")
    root = parser.parse_args().output
    table = read_table(HERE / "scores.parquet")
    test = by_row(table, "test")
    draw_front(test, by_row(table, "validation"), HERE / "front.png")
    draw_faces(test, root, HERE / "faces.png")


def draw_front(test: Scores, validation: Scores, file: Path) -> None:
    """Draw shares recognised and obeyed: fronts over guidance, and of the rows of the table."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4.8), layout="constrained", sharey=True)
    whole = {subject for subject, row in test if row == "angle 20 to 70"}
    for row in (PERSONALISED, "angle 20 to 70", "prompt alone"):
        drawn = [i for (subject, n), of in validation.items() if n == row for i in of]
        scales = sorted({image["guidance"] for image in drawn})
        points = [_shares([i for i in drawn if i["guidance"] == scale]) for scale in scales]
        left.plot(*zip(*points, strict=True), "o-", markersize=4, label=row)
        for scale, point in zip(scales, points, strict=True):
            left.annotate(f"{scale:g}", point, (4, 3), textcoords="offset points", fontsize=7)
    places = {
        row: _shares([i for (subject, n), of in test.items() if n == row for i in of])
        for row in ROWS
        if {subject for subject, n in test if n == row} >= whole
    }
    for front, rows in LINES.items():
        right.plot(*zip(*(places[row] for row in rows), strict=True), "-", linewidth=1, label=front)
    for row, place in places.items():
        right.plot(*place, "o" if ROWS[row].rule else "s", markersize=5, color="#444a55")
        right.annotate(row, place, (4, 3), textcoords="offset points", fontsize=6)
    left.set_title("over guidance, validation prompts", fontsize=10)
    right.set_title("each at its own best guidance, test prompts", fontsize=10)
    for axes in (left, right):
        axes.set_xlabel("subject recognised, %")
        axes.legend(frameon=False, fontsize=8)
    left.set_ylabel("prompt obeyed, %")
    figure.savefig(file, dpi=110)
    plt.close(figure)


def draw_faces(test: Scores, root: Path, file: Path) -> None:
    """Draw a photograph of each subject, then the same prompts and seeds down the columns."""
    places = {
        key: root / key[0] / "test" / f"{slug(key[1])}-{drawn[0]['guidance']}"
        for key, drawn in test.items()
    }
    # Those that were measured elsewhere have no images here.
    here = {key for key, place in places.items() if place.is_dir()}
    subjects = [name for name in SUBJECTS if all((name, row) in here for row in PICTURED)]
    head = 20
    size = (FACE * (1 + len(PICTURED)), head + len(subjects) * PROMPTS * (FACE + head))
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    for column, row in enumerate(("photograph", *PICTURED)):
        draw.text((column * FACE + 3, 4), row, fill="black")
    for number, name in enumerate(subjects):
        photograph = Image.open(FOLDER / name / "0.png")
        for column, row in enumerate(PICTURED, 1):
            drawn = images(places[name, row])
            for line, (image, prompt, _) in enumerate(drawn[:: len(drawn) // PROMPTS][:PROMPTS]):
                y = head + (number * PROMPTS + line) * (FACE + head)
                sheet.paste(_enlarged(image), (column * FACE, y + head))
                if column == 1:
                    draw.text((3, y + 4), prompt, fill="black")
                    sheet.paste(_enlarged(photograph), (0, y + head))
    sheet.quantize(256).save(file, optimize=True)


def _shares(images: list[dict[str, float]]) -> tuple[float, float]:
    recognised, obeyed = (
        100 * statistics.fmean(image[column] for image in images)
        for column in ("recognised", "obeyed")
    )
    return recognised, obeyed


def _enlarged(picture: Image.Image) -> Image.Image:
    return picture.resize((FACE - 4, FACE - 4), Image.Resampling.BICUBIC)


if __name__ == "__main__":
    main()
