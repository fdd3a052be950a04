"""The U-Net's data: scenes drawn once and kept as fp16 latents with their captions' tokens."""

from pathlib import Path
from random import Random

import numpy as np
import torch
from torch import Tensor

from tastemaker.nano.build.art import sprites
from tastemaker.nano.build.code import as_bytes, code, to_float
from tastemaker.nano.build.text import tokenize, tokenizer
from tastemaker.nano.captions import caption, sample_scene

SHARD = 2000
SHARDS = 20
# Standard deviation of the autoencoder's posterior, part of what the decoder learns to undo.
SPREAD = 0.05


def encoded(work: Path, shards: int = SHARDS) -> dict[str, Tensor]:
    """Latent means and token ids of the training scenes.

    Shards that are missing in `work/latents` are drawn first.
    """
    folder = work / "latents"
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{number:02}.npz" for number in range(shards)]
    if not all(path.exists() for path in paths):
        _encode(work, paths)
    parts = [np.load(path) for path in paths]
    return {
        name: torch.from_numpy(np.concatenate([part[name] for part in parts]))
        for name in ("mean", "ids")
    }


@torch.no_grad()
def _encode(work: Path, paths: list[Path]) -> None:
    art, words = sprites(work), tokenizer(work)
    encode = code(work, art)
    for path in paths:
        if path.exists():
            continue
        rng = Random(f"latents/{path.stem}")
        scenes = [sample_scene(rng, "train") for _ in range(SHARD)]
        temporary = path.with_suffix(".tmp.npz")
        np.savez(
            temporary,
            mean=encode(to_float(as_bytes(scenes, rng, art))).half().numpy(),
            ids=tokenize(words, [caption(scene) for scene in scenes]).to(torch.int16).numpy(),
        )
        temporary.replace(path)
