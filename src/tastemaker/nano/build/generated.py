"""Pictures drawn by snapshots of the model, kept as what the scorers must rate below real ones."""

from pathlib import Path
from random import Random

import numpy as np
import torch
from numpy.typing import NDArray

from tastemaker.nano.build.journal import Journal
from tastemaker.nano.build.pipeline import GUIDANCE, draw, snapshot
from tastemaker.nano.captions import Scene, caption, sample_scene

SPLITS = {"preference": "train", "judge": "judge"}
FASTER = 12
BLOCK = 48

Drawn = tuple[list[Scene], NDArray[np.uint8]]


def asked(scorer: str, name: str, number: int) -> list[Scene]:
    """The scenes asked of a snapshot for a scorer: another set for every snapshot and scorer.

    The judge's third style is left out: the model was never taught it.
    """
    rng = Random(f"generated/{scorer}/{name}")
    scenes: list[Scene] = []
    while len(scenes) < number:
        scene = sample_scene(rng, SPLITS[scorer])
        if scene.style != "bold":
            scenes.append(scene)
    return scenes


def generated(work: Path, scorer: str, name: str, number: int) -> Drawn:
    """Scenes asked and what a snapshot drew, from `work/generated`; missing blocks are drawn.

    Args:
        work: Folder of the build.
        scorer: Key of `SPLITS`.
        name: Snapshot, for example "100" for the final one.
        number: How many pictures; rounded up to whole blocks of `BLOCK`.

    Returns:
        The scenes and the pictures as bytes, (number, 64, 64, 3).
    """
    folder = work / "generated" / scorer
    folder.mkdir(parents=True, exist_ok=True)
    blocks = -(-number // BLOCK)
    scenes = asked(scorer, name, blocks * BLOCK)
    paths = [folder / f"{name}-{block:02}.npy" for block in range(blocks)]
    if not all(path.exists() for path in paths):
        _draw_blocks(work, scorer, name, scenes, paths)
    return scenes, np.concatenate([np.load(path) for path in paths])


def available(work: Path, scorer: str) -> list[tuple[str, int]]:
    """Snapshots of which pictures for the scorer are there, with how many, earliest first."""
    counts: dict[str, int] = {}
    for path in sorted((work / "generated" / scorer).glob("*-*.npy")):
        name = path.name.split("-")[0]
        counts[name] = counts.get(name, 0) + BLOCK
    return list(counts.items())


def _draw_blocks(
    work: Path, scorer: str, name: str, scenes: list[Scene], paths: list[Path]
) -> None:
    pipe, journal = snapshot(work, name), Journal(work / "generated.jsonl")
    offset = (1 + list(SPLITS).index(scorer)) * 1_000_000
    for block, path in enumerate(paths):
        if path.exists():
            continue
        part = scenes[block * BLOCK : (block + 1) * BLOCK]
        seeds = [offset + block * BLOCK + number for number in range(BLOCK)]
        with torch.inference_mode():
            pictures = draw(pipe, [caption(s) for s in part], seeds, GUIDANCE, FASTER, BLOCK)
        array = np.stack([np.asarray(picture.convert("RGB")) for picture in pictures])
        np.save(path.with_suffix(".tmp.npy"), array)
        path.with_suffix(".tmp.npy").replace(path)
        journal.write(scorer=scorer, snapshot=name, block=block)
