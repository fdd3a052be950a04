"""The U-Net's data: scenes drawn once, encoded once, kept as fp16 latents."""

from pathlib import Path
from random import Random

import numpy as np
import torch
from torch import Tensor

from tastemaker.nano.build.art import sprites
from tastemaker.nano.build.journal import Journal
from tastemaker.nano.build.scenes import render
from tastemaker.nano.build.text import tokenize, tokenizer
from tastemaker.nano.build.vae import load, to_tensor
from tastemaker.nano.captions import caption, sample_scene

SHARD = 2000
SHARDS = 30


def encoded(work: Path, shards: int = SHARDS) -> dict[str, Tensor]:
    """Latent means and standard deviations (scaled) and token ids of the training scenes.

    Shards that are missing in `work/latents` are drawn and encoded first.
    """
    folder = work / "latents"
    folder.mkdir(parents=True, exist_ok=True)
    missing = [n for n in range(shards) if not (folder / f"{n:02}.npz").exists()]
    if missing:
        _encode(work, folder, missing)
    parts = [np.load(folder / f"{number:02}.npz") for number in range(shards)]
    return {
        name: torch.from_numpy(np.concatenate([part[name] for part in parts]))
        for name in ("mean", "std", "ids")
    }


@torch.no_grad()
def _encode(work: Path, folder: Path, missing: list[int]) -> None:
    art, vae, words = sprites(work), load(work), tokenizer(work)
    journal = Journal(work / "latents.jsonl")
    scale = float(vae.config.scaling_factor)
    for number in missing:
        rng = Random(f"latents/{number}")
        scenes = [sample_scene(rng, "train") for _ in range(SHARD)]
        means, deviations = [], []
        for start in range(0, SHARD, 100):
            pictures = to_tensor([render(scene, rng, art) for scene in scenes[start : start + 100]])
            posterior = vae.encode(pictures).latent_dist
            means.append((posterior.mean * scale).half())
            deviations.append((posterior.std * scale).half())
        np.savez(
            folder / f"{number:02}.tmp.npz",
            mean=torch.cat(means).numpy(),
            std=torch.cat(deviations).numpy(),
            ids=tokenize(words, [caption(scene) for scene in scenes]).to(torch.int16).numpy(),
        )
        (folder / f"{number:02}.tmp.npz").replace(folder / f"{number:02}.npz")
        journal.write(shard=number, scenes=SHARD)
