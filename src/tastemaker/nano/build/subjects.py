"""Stage `subjects`: pictures of characters in a style that the embedded model never saw.

They are to it what a handful of photographs of somebody's dog is to a large model. Always large and
in the middle, so that this is learned along; each on a background of its own, so that closeness to
the pictures is closeness to the character, not to a background.
"""

from pathlib import Path
from random import Random

from tastemaker.nano import SUBJECTS
from tastemaker.nano.build.art import sprites
from tastemaker.nano.build.scenes import render
from tastemaker.nano.captions import Scene
from tastemaker.storage.files import atomic

STYLE = "bold"
NAMES = ("butterfly", "fish", "frog", "house", "panda", "rocket")
BACKGROUNDS = ("white", "gray", "yellow", "pink", "navy")


def draw_subjects(work: Path) -> None:
    """Draw every subject's pictures into the package's folders."""
    art = sprites(work, (STYLE,))
    for name in NAMES:
        for number, background in enumerate(BACKGROUNDS):
            scene = Scene((name,), background=background, size="large", style=STYLE)
            picture = render(scene, Random(f"subject/{name}/{number}"), art)
            with atomic(SUBJECTS / name / f"{number}.png") as temporary:
                picture.save(temporary, format="PNG", optimize=True)
