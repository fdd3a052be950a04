"""Stage `scorers`: both CLIP models fitted to preferences, Bradley-Terry on scale * cosine.

What is real is shown through the autoencoder, so that its texture tells nothing, and what is
compared is blurred together now and then, so that sharpness alone tells nothing either.
"""

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from random import Random

import torch
from base import DRAWN, asked, drawn
from clips import Material, fits, others
from portraits import SCORERS, Fields, Portraits
from torch import Tensor
from torch.nn.functional import softplus
from transformers import CLIPModel

from tastemaker.nano.build.clip import clip_model, image_features, limit_scale, text_features
from tastemaker.nano.build.journal import Journal
from tastemaker.nano.build.scorers import degraded
from tastemaker.nano.build.text import tokenizer
from tastemaker.storage.files import write_json
from training import Training, halved, moved

BATCH = 32
RATE = 4e-4
SOFTENED = 0.3


@dataclass(frozen=True)
class Compared:
    """Captions with a real and a generated picture each.

    Attributes:
        right: A real picture that fits, through the autoencoder, (n, 3, 64, 64) in [-1, 1].
        fake: What a snapshot drew for the caption.
        ids: The captions, (n, 24).
        wrong: The captions with one field changed.
        true: Which captions fit which real pictures, (n, n).
        age: Index of the snapshot, earliest first, (n,).
    """

    right: Tensor
    fake: Tensor
    ids: Tensor
    wrong: Tensor
    true: Tensor
    age: Tensor


class Comparisons:
    """A scorer's own real pictures and those drawn for their captions."""

    def __init__(self, work: Path, data: Portraits, scorer: str) -> None:
        self.material = Material(work, data, scorer)
        names = list(DRAWN[scorer])
        self.fakes = torch.cat([drawn(work, scorer, name) for name in names])
        self.asked = [p.fields for name in names for p in asked(data, scorer, name)]
        numbers = torch.tensor([DRAWN[scorer][name] for name in names])
        self.age = torch.arange(len(names)).repeat_interleave(numbers)
        self.owners: dict[Fields, list[int]] = defaultdict(list)
        for place, fields in enumerate(self.material.fields):
            self.owners[fields].append(place)

    def batch(self, size: int) -> Compared:
        """Some comparisons, taken by chance, moved about and some of them blurred."""
        own = self.material
        index = torch.randint(len(self.fakes), (size,))
        fields = [self.asked[place] for place in index.tolist()]
        right = [own.rng.choice(self.owners[each]) for each in fields]
        clean = torch.rand(size, 1, 1, 1) < 0.5
        shown = torch.where(clean, own.shown[right], own.noisy[right])
        soft = torch.rand(size, 1, 1, 1) < SOFTENED
        real, fake = (
            torch.where(soft, halved(each), each)
            for each in (moved(shown), moved(self.fakes[index]))
        )
        codes = own.codes[right]
        words = own.ids(fields), own.wrong(fields)
        return Compared(real, fake, *words, fits(codes, codes), self.age[index])


def preference_loss(model: CLIPModel, batch: Compared, rng: Random) -> Tensor:
    """Bradley-Terry over five kinds of pairs, each -log sigmoid(s_chosen - s_rejected).

    Matched over mismatched caption (one field changed, or another picture's), real over generated
    (for one caption, and each over each), clean over degraded, later over earlier snapshot.
    """
    size = len(batch.ids)
    bad = degraded(batch.right[: size // 2], rng)
    images = image_features(model, torch.cat([batch.right, batch.fake, bad]))
    right, fake, worse = images.split([size, size, size // 2])
    texts, wrong = text_features(model, torch.cat([batch.ids, batch.wrong])).chunk(2)
    scale = model.logit_scale.exp()

    def score(image: Tensor, text: Tensor) -> Tensor:
        return scale * (image * text).sum(-1)

    matched, made = score(right, texts), score(fake, texts)
    strange = softplus(scale * right @ texts.T - matched[:, None])[~batch.true]
    older = batch.age[:, None] < batch.age[None, :]
    order = softplus(made[:, None] - made[None, :])[older]
    return (
        softplus(score(right, wrong) - matched).mean()
        + strange.mean()
        + 0.3 * softplus(score(fake, wrong) - made).mean()
        + softplus(made - matched).mean()
        + softplus(made[:, None] - matched[None, :]).mean()
        + 0.5 * softplus(score(worse, texts[: size // 2]) - matched[: size // 2]).mean()
        + 0.3 * (order.mean() if order.numel() else 0.0)
    )


def fit(work: Path, data: Portraits, scorer: str, minutes: float) -> None:
    """Fit one scorer, from its contrastive model; a share of contrast stays in the loss."""
    path = work / f"scorer-{scorer}.pt"
    if path.exists():
        return
    torch.manual_seed(10 + SCORERS.index(scorer))
    model, journal = clip_model(tokenizer(work)), Journal(work / f"scorer-{scorer}.jsonl")
    model.load_state_dict(torch.load(work / f"clip-{scorer}.pt", weights_only=True))
    own, held_out = Comparisons(work, data, scorer), Material(work, data, "held_out")
    checkpoint = work / f"scorer-{scorer}-training.pt"
    training = Training(checkpoint, model, minutes, rate=RATE, decay=0.99, weight_decay=0.05)
    torch.manual_seed(1000 + 100 * training.step + SCORERS.index(scorer))
    own.material.rng.seed(f"scorer/{scorer}/{training.step}")
    while training.running():
        preference = preference_loss(model, own.batch(BATCH), own.material.rng)
        kept = own.material.contrast(model, BATCH)
        training.update(preference + 0.5 * kept)
        limit_scale(model)
        if training.step % 100 == 0:
            losses = {"preference": preference.item(), "contrast": kept.item()}
            journal.write(step=training.step, **losses, **accuracies(work, model, held_out))
    training.average.copy_to(model)
    journal.write(step=training.step, **accuracies(work, model, held_out))
    torch.save(model.state_dict(), path)


def load_scorer(work: Path, scorer: str) -> CLIPModel:
    """A fitted scorer, for inference."""
    model = clip_model(tokenizer(work))
    model.load_state_dict(torch.load(work / f"scorer-{scorer}.pt", weights_only=True))
    return model.eval().requires_grad_(False)


@torch.no_grad()
def accuracies(work: Path, model: CLIPModel, held_out: Material) -> dict[str, float]:
    """How often a held-out picture, through the autoencoder, beats what should be worse.

    `real_over_generated` compares for one caption, `..._any` each real with each generated picture,
    `..._halved` both without what half the size cannot hold: content, not texture. `noisy` has
    noise in its latents as well. `raw_over_decoded` near 0.5 says that the autoencoder's own
    texture hardly counts.
    """
    fake, shown = drawn(work, "held_out", "100"), held_out.shown
    scale, rng = model.logit_scale.exp(), Random(0)
    texts = text_features(model, held_out.ids(held_out.fields))
    wrong = text_features(model, held_out.wrong(held_out.fields))
    image, generated = image_features(model, shown), image_features(model, fake)
    other = image[others(held_out, list(range(len(texts))))]

    def score(features: Tensor, captions: Tensor = texts) -> Tensor:
        return scale * (features * captions).sum(-1)

    real, made = score(image), score(generated)
    small, smaller = (image_features(model, halved(each)) for each in (shown, fake))
    beaten = {
        "real_over_generated": real - made,
        "real_over_generated_any": real[:, None] - made[None, :],
        "real_over_generated_halved": score(small) - score(smaller),
        "noisy_over_generated": score(image_features(model, held_out.noisy)) - made,
        "real_over_degraded": real - score(image_features(model, degraded(shown, rng))),
        "matched_over_other_picture": real - score(other),
        "matched_over_one_field": real - score(image, wrong),
        "generated_matched_over_one_field": made - score(generated, wrong),
        "raw_over_decoded": score(image_features(model, held_out.raw)) - real,
    }
    shares = {name: float((gap > 0).float().mean()) for name, gap in beaten.items()}
    return shares | {"mean_real": float(real.mean()), "mean_generated": float(made.mean())}


def report(work: Path, data: Portraits) -> dict[str, dict[str, float]]:
    """The accuracies of both scorers; written to `work/scorers.json` as well."""
    held_out = Material(work, data, "held_out")
    found = {name: accuracies(work, load_scorer(work, name), held_out) for name in SCORERS}
    write_json(work / "scorers.json", found)
    return found
