"""Stage `clip`: two small CLIP models on two halves of the pictures, and the tokenizer of all."""

import json
from functools import cache
from pathlib import Path
from random import Random

import torch
from autoencoder import decoded
from portraits import SCORERS, Fields, Portraits, caption, pictures, unnamed
from torch import Tensor
from transformers import CLIPModel, CLIPTokenizer

from tastemaker.nano.build.clip import (
    clip_model,
    contrast,
    image_features,
    limit_scale,
    text_features,
)
from tastemaker.nano.build.journal import Journal
from tastemaker.nano.build.text import END, POSITIONS, START, merges_of, tokenize, tokenizer
from tastemaker.nano.build.vae import load
from training import Training, moved, to_float

BATCH = 64
RATE = 1e-3
HARD = 2
UNNAMED = 0.1


def write_tokenizer(work: Path, words: tuple[str, ...]) -> None:
    """`work/tokenizer`, in which every word of the captions is one token."""
    folder = work / "tokenizer"
    if (folder / "merges.txt").exists():
        return
    merges = merges_of(words)
    letters = sorted({letter for word in words for letter in word})
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), *map("".join, merges)]
    ids = {token: number for number, token in enumerate([*dict.fromkeys(tokens), START, END])}
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    files = {"vocab.json": json.dumps(ids), "merges.txt": "\n".join(lines) + "\n"}
    source = work / "vocabulary"
    _write(source, files)
    made = CLIPTokenizer.from_pretrained(source, model_max_length=POSITIONS)
    made.save_pretrained(folder)
    _write(folder, files)


class Material:
    """The pictures of a part as they are and through the autoencoder, and words about them.

    Args:
        work: Folder of the build.
        data: All portraits.
        part: Name of the part, see `Portraits.part`.
    """

    def __init__(self, work: Path, data: Portraits, part: str) -> None:
        self.data, self.portraits, self.rng = data, data.part(part), Random(part)
        self.words, vae = tokenizer(work), load(work)
        self.raw = to_float(pictures(self.portraits))
        self.shown = decoded(vae, self.raw)
        self.noisy = decoded(vae, self.raw, noise=0.07)
        self.fields = [each.fields for each in self.portraits]
        self.codes = data.codes(self.fields)
        self._ids = cache(lambda text: tokenize(self.words, [text])[0])

    def ids(self, fields: list[Fields]) -> Tensor:
        """Token ids of the fields' captions, (n, 24)."""
        return torch.stack([self._ids(caption(each)) for each in fields])

    def wrong(self, fields: list[Fields]) -> Tensor:
        """Token ids of captions with one field changed."""
        return self.ids([self.data.changed(each, self.rng) for each in fields])

    def mixed(self, index: Tensor) -> Tensor:
        """Pictures at an index, half of them as they are, half through the autoencoder."""
        plain = torch.rand(len(index), 1, 1, 1) < 0.5
        return torch.where(plain, self.raw[index], self.shown[index])

    def contrast(self, model: CLIPModel, size: int) -> Tensor:
        """The contrastive loss of some pictures, taken by chance."""
        index = torch.randint(len(self.portraits), (size,))
        said = [unnamed(self.fields[place], self.rng, UNNAMED) for place in index.tolist()]
        hard = self.wrong([each for each in said for _ in range(HARD)])
        true = fits(self.codes[index], self.data.codes(said))
        image = image_features(model, moved(self.mixed(index)))
        return contrast(model, image, self.ids(said), hard, true)


def fits(pictured: Tensor, said: Tensor) -> Tensor:
    """Which captions say nothing wrong about which pictures.

    Args:
        pictured: Codes of the pictures' fields, (n, 4).
        said: Codes of the captions' fields, -1 where not named, (m, 4).

    Returns:
        (n, m), true where all that is named is right.
    """
    return ((pictured[:, None] == said[None]) | (said[None] < 0)).all(-1)


def train(work: Path, data: Portraits, scorer: str, minutes: float) -> None:
    """Contrastive training of one scorer; saves `work/clip-<scorer>.pt`."""
    path = work / f"clip-{scorer}.pt"
    if path.exists():
        return
    write_tokenizer(work, data.vocabulary())
    torch.manual_seed(1 + SCORERS.index(scorer))
    model, journal = clip_model(tokenizer(work)), Journal(work / f"clip-{scorer}.jsonl")
    own, held_out = Material(work, data, scorer), Material(work, data, "held_out")
    checkpoint = work / f"clip-{scorer}-training.pt"
    training = Training(checkpoint, model, minutes, rate=RATE, decay=0.995, weight_decay=0.05)
    torch.manual_seed(100 * training.step + SCORERS.index(scorer))
    own.rng.seed(f"{scorer}/{training.step}")
    while training.running():
        loss = own.contrast(model, BATCH)
        training.update(loss)
        limit_scale(model)
        if training.step % 100 == 0:
            scale = model.logit_scale.exp().item()
            share = told_apart(model, held_out)
            journal.write(step=training.step, loss=loss.item(), scale=scale, **share)
    training.average.copy_to(model)
    journal.write(step=training.step, **told_apart(model, held_out))
    torch.save(model.state_dict(), path)


@torch.no_grad()
def told_apart(model: CLIPModel, material: Material) -> dict[str, float]:
    """How often the caption beats a wrong one: of another picture, and with one field changed."""
    image = image_features(model, material.shown)
    matched = (image * text_features(model, material.ids(material.fields))).sum(-1)
    near = (image * text_features(model, material.wrong(material.fields))).sum(-1)
    places = others(material, list(range(len(material.fields))))
    other = text_features(model, material.ids([material.fields[place] for place in places]))
    return {
        "matched_over_other": float((matched > (image * other).sum(-1)).float().mean()),
        "matched_over_one_field": float((matched > near).float().mean()),
    }


def others(material: Material, places: list[int]) -> list[int]:
    """For each of some pictures the place of another one that does not fit its caption."""
    found = []
    for place in places:
        other = place
        while material.fields[other] == material.fields[place]:
            other = material.rng.randrange(len(material.fields))
        found.append(other)
    return found


def _write(folder: Path, files: dict[str, str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
