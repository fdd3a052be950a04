"""Nuisances, and a viewer's count, against `nano_checker` and `nano_examiner`.

Draws a picture of the base for each of 128 prompts, changes it, and scores both. `sheet.png` has
the first 100 as the base of that day drew them, and `counted.json` what a viewer saw in each,
shuffled and without prompts (null: not to be recognised). Prints the tables of README.md; takes
about two minutes on one core.
"""

import argparse
import json
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline
from PIL import Image, ImageFilter

from tastemaker.core.registry import SCORERS
from tastemaker.nano import MODEL
from tastemaker.nano.build.pipeline import draw
from tastemaker.nano.captions import parse, prompts

HERE = Path(__file__).parent
NAMES = ("nano_checker", "nano_examiner")
ATTRIBUTES = ("concept", "count", "place")
NUMBER, COUNTED, SIDE, COLUMNS = 128, 100, 64, 10


def jpeg(picture: Image.Image) -> Image.Image:
    """The picture after JPEG of quality 50."""
    file = BytesIO()
    picture.save(file, "JPEG", quality=50)
    return Image.open(file).convert("RGB")


CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "one grey level more": lambda picture: picture.point(lambda value: min(255, value + 1)),
    "contrast x 1.1": lambda picture: picture.point(lambda v: round(1.1 * (v - 127.5) + 127.5)),
    "blur, radius 0.7": lambda picture: picture.filter(ImageFilter.GaussianBlur(0.7)),
    "JPEG, quality 50": jpeg,
}


def scored(name: str, pictures: list[Image.Image], asked: list[str]) -> tuple[float, float]:
    """Return the mean score and the share obeyed."""
    scores, obeyed = (SCORERS.bind(name, {"obeyed": each})() for each in (False, True))
    return float(scores(pictures, asked).mean()), float(obeyed(pictures, asked).mean())


def nuisances(asked: list[str], base: list[Image.Image], weaker: list[Image.Image]) -> list[str]:
    """Rows of what a change of all pictures changes."""
    rows = ["| pictures | " + " | ".join(f"{n}: mean score | obeyed" for n in NAMES) + " |"]
    rows += ["|---|" + "---|---|" * len(NAMES)]
    sets = {"base, guidance 2.5": base}
    sets |= {title: [change(each) for each in base] for title, change in CHANGES.items()}
    sets["base, guidance 2.0"] = weaker
    for title, pictures in sets.items():
        cells = [scored(name, pictures, asked) for name in NAMES]
        words = [f"{mean:.2f} | {100 * share:.1f} %" for mean, share in cells]
        rows.append(f"| {title} | " + " | ".join(words) + " |")
    return rows


def sheet() -> list[Image.Image]:
    """The pictures that were counted."""
    whole = Image.open(HERE / "sheet.png").convert("RGB")
    corners = [(n % COLUMNS * SIDE, n // COLUMNS * SIDE) for n in range(COUNTED)]
    return [whole.crop((x, y, x + SIDE, y + SIDE)) for x, y in corners]


def viewed(text: str | None, prompt: str) -> dict[str, bool | None]:
    """Return whether what a viewer saw is what the prompt asks; None where that cannot be said."""
    asked, seen = parse(prompt), parse(text) if text else None
    same = seen is not None and set(asked.concepts) == set(seen.concepts)
    if seen is None or not same:
        return {"concept": False, "count": None, "place": None}
    turned = {"left": "right", "right": "left", "above": "below", "below": "above", "": ""}
    relation = seen.relation if seen.concepts == asked.concepts else turned[seen.relation]
    place = relation == asked.relation and seen.position == asked.position
    named = asked.relation or asked.position
    return {"concept": True, "count": seen.count == asked.count, "place": place if named else None}


def confusion(asked: list[str]) -> list[str]:
    """Rows of what a viewer and each network say of the pictures that were counted."""
    counted = json.loads((HERE / "counted.json").read_text(encoding="utf-8"))
    views = [viewed(text, prompt) for text, prompt in zip(counted, asked, strict=True)]
    rows = ["| attribute | network | both yes | viewer alone | network alone | both no |"]
    rows += ["|---|---|---|---|---|---|"]
    for attribute in ATTRIBUTES:
        for name in NAMES:
            scorer = SCORERS.bind(name, {"obeyed": True, "attribute": attribute})()
            seen = scorer(sheet(), asked).bool().tolist()
            pairs = [(view[attribute], each) for view, each in zip(views, seen, strict=True)]
            cells = [
                str(pairs.count((viewer, network)))
                for viewer in (True, False)
                for network in (True, False)
            ]
            rows.append(f"| {attribute} | {name} | {' | '.join(cells)} |")
    return rows


def main() -> None:
    """Draw, score and print both tables."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    torch.set_num_threads(1)
    asked = prompts("test", NUMBER)
    pipe = StableDiffusionPipeline.from_pretrained(MODEL, dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    base, weaker = (draw(pipe, asked, list(range(NUMBER)), guidance=g) for g in (2.5, 2.0))
    print("\n".join([*nuisances(asked, base, weaker), "", *confusion(asked[:COUNTED])]))


if __name__ == "__main__":
    main()
