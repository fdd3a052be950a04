"""Pictures of the model's own, kept: what the scorers learn to read beside drawn art."""

from pathlib import Path
from random import Random

import numpy as np
import torch
from numpy.typing import NDArray

from tastemaker.nano.build.journal import Journal
from tastemaker.nano.build.pipeline import draw, snapshot
from tastemaker.nano.captions import STYLES, Scene, caption, sample_scene

SPLITS = {"preference": "train", "judge": "judge"}
FASTER = 12
BLOCK = 48


def asked(scorer: str, number: int) -> list[Scene]:
    """Return scenes of the scorer's split in the styles that the model was taught."""
    rng = Random(f"generated/{scorer}")
    scenes: list[Scene] = []
    while len(scenes) < number:
        scene = sample_scene(rng, SPLITS[scorer])
        if scene.style in STYLES:
            scenes.append(scene)
    return scenes


def generated(work: Path, scorer: str, guidance: float, blocks: int) -> NDArray[np.uint8]:
    """Pictures for `asked`, from `work/generated`; missing blocks are drawn.

    Args:
        work: Folder of the build.
        scorer: Key of `SPLITS`.
        guidance: Scale of guidance; the starting noise is the same for all.
        blocks: How many times `BLOCK` pictures.

    Returns:
        Bytes, (blocks * BLOCK, 64, 64, 3).
    """
    folder = work / "generated" / scorer
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{guidance}-{block:02}.npy" for block in range(blocks)]
    missing = [number for number, path in enumerate(paths) if not path.exists()]
    if missing:
        pipe, journal = snapshot(work), Journal(work / "generated.jsonl")
        scenes = asked(scorer, blocks * BLOCK)
        offset = (1 + list(SPLITS).index(scorer)) * 1_000_000
        for block in missing:
            first = block * BLOCK
            captions = [caption(scene) for scene in scenes[first : first + BLOCK]]
            seeds = [offset + first + number for number in range(BLOCK)]
            with torch.inference_mode():
                pictures = draw(pipe, captions, seeds, guidance, FASTER, BLOCK)
            unfinished = paths[block].with_suffix(".tmp.npy")
            np.save(unfinished, np.stack([np.asarray(each.convert("RGB")) for each in pictures]))
            unfinished.replace(paths[block])
            journal.write(scorer=scorer, guidance=guidance, block=block)
    return np.concatenate([np.load(path) for path in paths])
