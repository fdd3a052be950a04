"""Measure by how much training changes images: each row beside the personalised model.

    python benchmarks/dreambooth_dpo/changes.py --output runs/dreambooth_dpo > changes.md

Takes the subjects whose row and personalised model were drawn at equal guidance: only there do
images of one prompt and seed differ by the training alone.
"""

import argparse
import statistics
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from rules import PERSONALISED, ROWS, slug
from stages import images
from subjects import SUBJECTS


def changes(root: Path, subject: str, row: str) -> Iterator[float]:
    """Yield the mean absolute difference of each image, in grey levels of 255."""
    first, second = (drawn(root / subject / "test", each) for each in (row, PERSONALISED))
    for scale in sorted(first.keys() & second.keys()):
        for one, other in zip(images(first[scale]), images(second[scale]), strict=True):
            pixels = (np.asarray(image, np.float32) for image in (one[0], other[0]))
            yield float(np.abs(np.subtract(*pixels)).mean())


def drawn(folder: Path, row: str) -> dict[str, Path]:
    """Find a row's pools by guidance."""
    return {
        place.name.removeprefix(f"{slug(row)}-"): place
        for place in folder.glob(f"{slug(row)}-[0-9].[0-9]")
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True, help="folder of the runs")
    root = parser.parse_args().output
    print("| row | images | median change, grey levels |\n|---|---|---|")
    for row in ROWS:
        found = [each for name in SUBJECTS for each in changes(root, name, row)]
        if found and row != PERSONALISED:
            print(f"| {row} | {len(found)} | {statistics.median(found):.2f} |")


if __name__ == "__main__":
    main()
