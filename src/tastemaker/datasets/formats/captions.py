"""Plain images with captions: what supervised training and most other tools read."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from tastemaker.core.registry import LAYOUTS
from tastemaker.datasets.comparisons import Comparison
from tastemaker.datasets.formats.image_files import ImageFolder
from tastemaker.storage.files import atomic


@LAYOUTS.register("captions")
def write_captions(comparisons: Iterator[Comparison], folder: Path) -> None:
    """The best images of each prompt, with metadata.jsonl: `{"file_name": ..., "text": ...}`.

    Of pairs these are the chosen images; of a pool without scores all images are equally good.

    Args:
        comparisons: Of any number of images.
        folder: Output folder.
    """
    images = ImageFolder(folder)
    with (
        atomic(folder / "metadata.jsonl") as temporary,
        temporary.open("w", encoding="utf-8") as lines,
    ):
        for number, comparison in enumerate(comparisons):
            best = max(comparison.verdicts)
            for place, verdict in enumerate(comparison.verdicts):
                if verdict == best:
                    name = images.put(number, place, comparison.images[place])
                    row = {"file_name": name, "text": comparison.prompt}
                    lines.write(json.dumps(row, ensure_ascii=False) + "\n")


write_captions.any_number = True  # type: ignore[attr-defined]
