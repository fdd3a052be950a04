"""Judge features of held-out drawn art: what the drift of a policy is measured against.

    python benchmarks/credit/real_features.py --work DIR

DIR is the folder of a build of the embedded model (`make nano`), which holds the art. The features
are committed, so that the comparison itself needs no art.
"""

import argparse
from pathlib import Path
from random import Random

import torch
from safetensors.torch import save_file

from tastemaker.nano import JUDGE
from tastemaker.nano.build.art import Sprites, sprites
from tastemaker.nano.build.scenes import render
from tastemaker.nano.captions import sample_scene
from tastemaker.scorers.clip import ClipScorer

NUMBER = 1024
SPLITS = ("validation", "test")


def main() -> None:
    """Draw scenes of both splits and keep their features."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent)
    options = parser.parse_args()
    art, judge = sprites(options.work), ClipScorer(model=str(JUDGE))
    features = {split: drawn_features(split, art, judge) for split in SPLITS}
    save_file(features, options.output / "real_features.safetensors")


def drawn_features(split: str, art: Sprites, judge: ClipScorer) -> torch.Tensor:
    """Features of scenes of a split, half precision."""
    rng = Random(f"real features/{split}")
    scenes = []
    while len(scenes) < NUMBER:
        scene = sample_scene(rng, split)
        if scene.style != "bold":  # the judge's third style, which the model was never taught
            scenes.append(scene)
    parts = []
    for start in range(0, NUMBER, 64):
        pictures = [render(scene, rng, art) for scene in scenes[start : start + 64]]
        parts.append(judge.features(pictures))
    return torch.cat(parts).half()


if __name__ == "__main__":
    main()
