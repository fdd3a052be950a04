"""Stages `unet` and `draw`: the base model, and what its snapshots draw."""

from pathlib import Path
from random import Random

import numpy as np
import torch
from clips import write_tokenizer
from portraits import SCORERS, Portrait, Portraits, caption, pictures
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.utils.data import Dataset

from tastemaker.core.seeding import keyed_generator
from tastemaker.nano.build.journal import Journal
from tastemaker.nano.build.latents import DROPOUT, Batch, timesteps_and_noise
from tastemaker.nano.build.pipeline import draw, snapshot
from tastemaker.nano.build.text import tokenize, tokenizer
from tastemaker.nano.build.unet import BATCH, Trainer, fit
from tastemaker.nano.build.vae import load
from training import to_float

# Narrower than the embedded model, 3.3 million parameters: with its scorers it takes 12 MB at most.
CHANNELS = (48, 80, 96)
UNNAMED = 0.1
GUIDANCE, STEPS = 2.5, 15
BLOCK = 60
# Which snapshots draw how many pictures for the captions of which part.
DRAWN = {
    "preference": {"065": 120, "080": 240, "100": 720},
    "judge": {"065": 120, "080": 240, "100": 720},
    "held_out": {"100": 300},
}


class PortraitBatches(Dataset[Batch]):
    """Batches of the train pictures, as they are or mirrored, item n that of step n.

    Args:
        work: Folder of the build.
        part: The pictures.
    """

    def __init__(self, work: Path, part: list[Portrait]) -> None:
        path = work / "latents.safetensors"
        if not path.exists():
            save_file(_encoded(work, part), path.with_suffix(".tmp"))
            path.with_suffix(".tmp").rename(path)
        cached = load_file(path)
        self.mean, self.std = cached["mean"], cached["std"]
        words = tokenizer(work)
        self.ids = torch.stack([tokenize(words, _captions(each)) for each in part])
        self.empty = tokenize(words, [""])

    def __getitem__(self, step: int) -> Batch:
        """Latents drawn from the posterior, and ids of captions with clauses left out by chance."""
        generator = keyed_generator("portraits", step)
        index = torch.randint(len(self.ids), (BATCH,), generator=generator)
        side = torch.randint(2, (BATCH,), generator=generator)
        mean, std = self.mean[side, index], self.std[side, index]
        left_out = torch.rand(BATCH, 3, generator=generator) < UNNAMED
        kind = (left_out * torch.tensor([1, 2, 4])).sum(1)
        dropped = torch.rand(BATCH, 1, generator=generator) < DROPOUT
        ids = torch.where(dropped, self.empty, self.ids[index, kind])
        latents = mean + std * torch.randn(mean.shape, generator=generator)
        return latents, ids, *timesteps_and_noise(latents, generator)


@torch.no_grad()
def _encoded(work: Path, part: list[Portrait]) -> dict[str, Tensor]:
    vae, known = load(work), to_float(pictures(part))
    sides = []
    for side in (known, known.flip(3)):
        posteriors = [vae.encode(some).latent_dist for some in side.split(32)]
        sides.append(
            [torch.cat([getattr(p, name) for p in posteriors]) for name in ("mean", "std")]
        )
    mean, std = (torch.stack(both) for both in zip(*sides, strict=True))
    return {"mean": mean, "std": std}


def _captions(portrait: Portrait) -> list[str]:
    """The caption with every subset of its three clauses left out; bit n leaves out clause n."""
    gender, *clauses = portrait.fields
    return [
        caption((gender, *(None if kind >> n & 1 else each for n, each in enumerate(clauses))))
        for kind in range(8)
    ]


def train(work: Path, data: Portraits, minutes: float) -> None:
    """Train for as many steps as the minutes allow, to the last snapshot."""
    if not (work / "snapshots" / "100.safetensors").exists():
        write_tokenizer(work, data.vocabulary())
        batches = PortraitBatches(work, data.train)
        trainer = Trainer(work, CHANNELS, data.prompts("validation")[:32])
        fit(trainer, batches, Journal(work / "unet.jsonl"), minutes=minutes)


def asked(data: Portraits, part: str, name: str) -> list[Portrait]:
    """The portraits whose captions a snapshot is asked for, in turn, beginning anywhere."""
    portraits = data.part(part)
    start = 0 if part == "held_out" else Random(f"{part}/{name}").randrange(len(portraits))
    number = DRAWN[part][name]
    return [portraits[(start + place) % len(portraits)] for place in range(number)]


def draw_all(work: Path, data: Portraits, scorer: str | None) -> None:
    """Draw the pictures of `DRAWN` that are missing, of one scorer's or of all parts."""
    (work / "drawn").mkdir(exist_ok=True)
    journal = Journal(work / "drawn.jsonl")
    for part, name in ((p, n) for p in DRAWN for n in DRAWN[p] if scorer in (None, p)):
        paths = _blocks(work, part, name)
        if all(path.exists() for path in paths):
            continue
        pipe, captions = snapshot(work, name), [p.caption for p in asked(data, part, name)]
        offset = 1_000_000 * (1 + [*SCORERS, "held_out"].index(part)) + 10_000 * int(name)
        for block, path in enumerate(paths):
            if path.exists():
                continue
            texts = captions[block * BLOCK : (block + 1) * BLOCK]
            seeds = [offset + block * BLOCK + place for place in range(len(texts))]
            with torch.inference_mode():
                images = draw(pipe, texts, seeds, GUIDANCE, STEPS, BLOCK)
            temporary = path.with_suffix(".tmp.npy")
            np.save(temporary, np.stack([np.asarray(each) for each in images]))
            temporary.replace(path)
            journal.write(part=part, snapshot=name, block=block)


def drawn(work: Path, part: str, name: str) -> Tensor:
    """What a snapshot drew for a part's captions, (n, 3, 64, 64) in [-1, 1]."""
    array = np.concatenate([np.load(path) for path in _blocks(work, part, name)])
    return to_float(torch.from_numpy(array).permute(0, 3, 1, 2))


def _blocks(work: Path, part: str, name: str) -> list[Path]:
    number = -(-DRAWN[part][name] // BLOCK)
    return [work / "drawn" / f"{part}-{name}-{block:02}.npy" for block in range(number)]
