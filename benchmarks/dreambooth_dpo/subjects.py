"""Draw the subjects' photographs: characters in a style that the base was never taught.

    python benchmarks/dreambooth_dpo/subjects.py --work DIR

DIR is the folder of a build of the embedded model (`make nano`), which holds the art. The pictures
are committed, so that the comparison itself needs no art. Three show the subject large, three small
at places of their own, each on another background, and captions say so: neither size, place nor
background is learned as part of the subject. Fluent Emoji by Microsoft Corporation, MIT, as those
of the package.
"""

import argparse
from dataclasses import replace
from pathlib import Path
from random import Random

from tastemaker.nano.build.art import sprites
from tastemaker.nano.build.scenes import render
from tastemaker.nano.build.subjects import STYLE
from tastemaker.nano.captions import Scene, caption
from tastemaker.storage.files import atomic, write_text

FOLDER = Path(__file__).parent / "subjects"
TUNED = ("fish",)
"""Settings were chosen on this subject, which no table shows."""
SUBJECTS = ("butterfly", "house", "rocket", "shirt", "penguin", "panda", "ball")
"""Those of the tables, in the order of the queue."""
VIEWS = (
    ("white", "large", ""),
    ("pink", "large", ""),
    ("navy", "large", ""),
    ("gray", "small", "left"),
    ("yellow", "small", "top"),
    ("green", "small", "right"),
)
"""Background, size and place of each photograph."""
NAMED = frozenset(("size", "position", "background"))
"""By its caption; the style is the subject's own."""


def main() -> None:
    """Draw every subject's photographs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    art = sprites(parser.parse_args().work, (STYLE,))
    for name in (*TUNED, *SUBJECTS):
        for number, (background, size, position) in enumerate(VIEWS):
            scene = Scene((name,), 1, "", background, size, position, STYLE)
            picture = render(scene, Random(f"benchmark/{name}/{number}"), art)
            with atomic(FOLDER / name / f"{number}.png") as temporary:
                picture.save(temporary, format="PNG", optimize=True)
            told = caption(replace(scene, named=("size", "position", "background"))).replace(
                f"{size} {name}", f"{size} {{}}"
            )
            write_text(FOLDER / name / f"{number}.txt", f"{told}\n")


if __name__ == "__main__":
    main()
