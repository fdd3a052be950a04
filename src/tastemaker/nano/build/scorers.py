"""Stage `scorers`: the two CLIP models fitted to preferences, Bradley-Terry on scale * cosine."""

import time
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate, softplus
from transformers import CLIPModel

from tastemaker.nano.build.averaging import cosine, set_rate
from tastemaker.nano.build.clip import (
    Material,
    clip_model,
    contrast,
    image_features,
    text_features,
    update,
)
from tastemaker.nano.build.generated import available, generated
from tastemaker.nano.build.journal import Journal
from tastemaker.nano.build.negatives import changed
from tastemaker.nano.captions import Scene

BATCH = 40
RATE = 4e-4
HELD_OUT = 0.15


def scores(model: CLIPModel, pictures: Tensor, ids: Tensor) -> Tensor:
    """Score of each picture under its own caption: logit_scale * cosine, (pictures,)."""
    product = (image_features(model, pictures) * text_features(model, ids)).sum(-1)
    return model.logit_scale.exp() * product


def degraded(pictures: Tensor, rng: Random) -> Tensor:
    """Each picture blurred, noisy, bent or shifted in colour, by a random amount."""
    out = []
    for picture in pictures:
        kind, amount = rng.choice(("blur", "noise", "bend", "colour")), rng.uniform(0.4, 1.0)
        generator = torch.Generator().manual_seed(rng.getrandbits(40))
        if kind == "blur":
            size = rng.choice((2, 3, 4))
            small = avg_pool2d(picture[None], size, ceil_mode=True)
            worse = interpolate(small, size=64, mode="bilinear")[0]
        elif kind == "noise":
            worse = picture + 0.5 * amount * torch.randn(picture.shape, generator=generator)
        elif kind == "bend":
            worse = bent(picture, 0.25 * amount, generator)
        else:
            shift = torch.randn((3, 1, 1), generator=generator)
            worse = picture + 0.35 * amount * shift
        out.append(worse.clamp(-1, 1))
    return torch.stack(out)


def bent(picture: Tensor, amount: float, generator: torch.Generator) -> Tensor:
    """Bend a picture smoothly, by an amount in shares of half its side."""
    ticks = torch.linspace(-1, 1, 64)
    grid = torch.stack(torch.meshgrid(ticks, ticks, indexing="xy"), dim=-1)
    coarse = amount * torch.randn((1, 2, 6, 6), generator=generator)
    shift = interpolate(coarse, size=64, mode="bicubic")[0].permute(1, 2, 0)
    bent: Tensor = torch.nn.functional.grid_sample(
        picture[None], (grid + shift)[None], padding_mode="border", align_corners=False
    )[0]
    return bent


@dataclass(frozen=True, slots=True)
class Comparisons:
    """Captions with four pictures each, all as the autoencoder or the model would show them.

    Attributes:
        right: Drawn art for the caption, (n, 3, 64, 64) in [-1, 1].
        other: Drawn art with one named attribute changed.
        fake: What a snapshot of the model drew for the caption.
        ids: The captions, (n, 24).
        wrong: The captions of `other`, (n, 24).
        age: Index of the snapshot that drew `fake`, earliest first, (n,).
    """

    right: Tensor
    other: Tensor
    fake: Tensor
    ids: Tensor
    wrong: Tensor
    age: Tensor

    def some(self, index: Tensor) -> "Comparisons":
        """The comparisons at an index."""
        parts = (self.right, self.other, self.fake, self.ids, self.wrong, self.age)
        return Comparisons(*(part[index] for part in parts))


def comparisons(work: Path, scorer: str, material: Material, held_out: bool) -> Comparisons:
    """All comparisons with pictures drawn for a scorer, either the fitted or the held-out part."""
    asked: list[Scene] = []
    fakes, ages = [], []
    for age, (name, number) in enumerate(available(work, scorer)):
        scenes, array = generated(work, scorer, name, number)
        cut = round(number * (1 - HELD_OUT))
        kept = slice(cut, number) if held_out else slice(0, cut)
        asked += scenes[kept]
        fakes.append(torch.from_numpy(np.ascontiguousarray(array[kept])))
        ages += [age] * len(scenes[kept])
    mutated = [changed(scene, material.rng) for scene in asked]
    return Comparisons(
        right=material.decoded(material.pictures(asked)),
        other=material.decoded(material.pictures(mutated)),
        fake=torch.cat(fakes).permute(0, 3, 1, 2).float() / 127.5 - 1,
        ids=material.ids(asked),
        wrong=material.ids(mutated),
        age=torch.tensor(ages),
    )


def preference_loss(model: CLIPModel, batch: Comparisons, rng: Random) -> Tensor:
    """Bradley-Terry over five kinds of pairs, each -log sigmoid(s_chosen - s_rejected).

    Matched over mismatched caption (for real and, weakly, for generated pictures), matched over
    mismatched picture, real over generated, clean over degraded, later over earlier snapshot.
    """
    size = len(batch.ids)
    bad = degraded(batch.right[: size // 2], rng)
    images = image_features(model, torch.cat([batch.right, batch.other, batch.fake, bad]))
    right, other, fake, worse = images.split([size, size, size, size // 2])
    texts, wrong = text_features(model, torch.cat([batch.ids, batch.wrong])).chunk(2)
    scale = model.logit_scale.exp()

    def score(image: Tensor, text: Tensor) -> Tensor:
        return scale * (image * text).sum(-1)

    matched = score(right, texts)
    drawn = score(fake, texts)
    older = batch.age[:, None] < batch.age[None, :]
    order = softplus(drawn[:, None] - drawn[None, :])[older]
    return (
        softplus(score(right, wrong) - matched).mean()
        + softplus(score(other, texts) - matched).mean()
        + 0.3 * softplus(score(fake, wrong) - drawn).mean()
        + softplus(drawn - matched).mean()
        + 0.5 * softplus(score(worse, texts[: size // 2]) - matched[: size // 2]).mean()
        + 0.3 * (order.mean() if order.numel() else 0.0)
    )


def fit(work: Path, scorer: str, minutes: float, seed: int) -> None:
    """Fit one scorer for some minutes, starting from its contrastive model.

    A share of contrast stays in the loss, so that captions stay distinguishable.
    """
    path = work / f"scorer-{scorer}.pt"
    if path.exists():
        return
    torch.manual_seed(seed)
    material = Material(work, scorer, seed + 1)
    pool = comparisons(work, scorer, material, held_out=False)
    journal = Journal(work / f"scorer-{scorer}.jsonl")
    model = clip_model(material.words)
    model.load_state_dict(torch.load(work / f"clip-{scorer}.pt", weights_only=True))
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.05, foreach=True)
    began, step, total = time.monotonic(), 0, 60 * minutes
    while (spent := time.monotonic() - began) < total:
        set_rate(optimizer, RATE * cosine(spent / total))
        index = torch.randint(len(pool.ids), (BATCH,))
        preference = preference_loss(model, pool.some(index), material.rng)
        scenes = material.scenes(BATCH)
        wrong = [changed(scene, material.rng) for scene in scenes for _ in range(2)]
        pictures = material.pictures(scenes)
        kept = contrast(model, pictures, material.ids(scenes), material.ids(wrong))
        update(model, optimizer, preference + 0.5 * kept)
        step += 1
        if step % 25 == 0:
            journal.write(step=step, preference=preference.item(), contrast=kept.item())
    torch.save(model.state_dict(), path)


def load_scorer(work: Path, scorer: str) -> CLIPModel:
    """A fitted scorer, for inference."""
    model = clip_model(Material(work, scorer, 0).words)
    model.load_state_dict(torch.load(work / f"scorer-{scorer}.pt", weights_only=True))
    model.requires_grad_(False)
    return model.eval()
