"""Stage `scorers`: both CLIP models fitted to preferences, Bradley-Terry on scale * cosine.

Preferred are the caption of a picture over the same with one attribute changed, the clean picture
over a degraded one, and the unchanged picture over, or at least not under, one with a nuisance.
"""

from pathlib import Path
from random import Random

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate, relu, softplus
from transformers import CLIPModel

from tastemaker.nano.build.captioned_scenes import Captioned, CaptionedScenes
from tastemaker.nano.build.clip import clip_model, contrast, image_features, text_features
from tastemaker.nano.build.contrastive import SAVED_EVERY, SEEDS, STEPS, Trainer
from tastemaker.nano.build.generated import BLOCK, asked, generated
from tastemaker.nano.build.journal import Journal
from tastemaker.nano.build.negatives import changed
from tastemaker.nano.build.pipeline import GUIDANCE
from tastemaker.nano.build.text import tokenize, tokenizer
from tastemaker.nano.build.vae import to_pictures, to_tensor
from tastemaker.nano.build.wear import bent
from tastemaker.nano.captions import caption
from tastemaker.scorers.nuisances import NUISANCES, Nuisance

BATCH, SOME = 48, 24
FIT_STEPS = 400
RATE = 3e-4
BLOCKS = 4
WEAKER = 2.0
# The opposites keep a scorer from learning that darker, or flatter, is better.
CHANGES: dict[str, Nuisance | None] = {
    **NUISANCES,
    "one grey level less": lambda picture: picture.point(lambda value: max(value - 1, 0)),
    "contrast / 1.1": lambda picture: picture.point(lambda v: round((v - 127.5) / 1.1 + 127.5)),
    "guidance 2.0": None,
}


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


class Generated:
    """Pictures of the model, each at two scales of guidance, with right and wrong captions.

    Args:
        work: Folder of the build.
        scorer: Key of `generated.SPLITS`.
        blocks: How many times `BLOCK` pictures.
    """

    def __init__(self, work: Path, scorer: str, blocks: int) -> None:
        words, rng = tokenizer(work), Random(f"wrong/{scorer}")
        scenes = asked(scorer, blocks * BLOCK)
        self.best, self.weaker = (
            torch.from_numpy(generated(work, scorer, guidance, blocks)).permute(0, 3, 1, 2)
            for guidance in (GUIDANCE, WEAKER)
        )
        self.ids = tokenize(words, [caption(scene) for scene in scenes])
        self.wrong = tokenize(words, [caption(changed(scene, rng)) for scene in scenes])


class Balance(nn.Module):
    """Pushes each nuisance's rate of winning down to one half, by its moving average.

    With margins `m = score(changed) - score(unchanged)` the rate is `(1 + b) / 2` for the average
    `b` of `tanh(m / mean |m|)`, and the loss `max(0, b + 0.1)` times the present mean, where `b`
    passes no gradient: one batch alone would show its pictures' chance more than the scorer's bias.
    """

    bias: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("bias", torch.zeros(len(CHANGES)))

    def forward(self, number: int, margins: Tensor) -> Tensor:
        """Return the loss of one nuisance's margins, a scalar."""
        mean = (margins / margins.detach().abs().mean().clamp(min=1e-6)).tanh().mean()
        self.bias[number] += 0.1 * (mean.detach() - self.bias[number])
        return relu(self.bias[number] + 0.1) * mean


def changed_pictures(
    name: str, drawn: Tensor, ids: Tensor, fakes: Generated, index: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return pictures, the same with a nuisance, and their captions.

    Args:
        name: Key of `CHANGES`.
        drawn: Scenes in [-1, 1]; not taken where the nuisance is another guidance.
        ids: Their captions.
        fakes: Pictures of the model.
        index: Which of them.
    """
    best = fakes.best[index].float() / 127.5 - 1
    change = CHANGES[name]
    if change is None:
        return best, fakes.weaker[index].float() / 127.5 - 1, fakes.ids[index]
    pictures = to_pictures(torch.cat([best, drawn]))
    worse = to_tensor([change(picture) for picture in pictures])
    return to_tensor(pictures), worse, torch.cat([fakes.ids[index], ids])


def preference_loss(
    trainer: Trainer, batch: Captioned, fakes: Generated, balance: Balance
) -> Tensor:
    """Contrast, and Bradley-Terry `-log sigmoid(s_chosen - s_rejected)` over three kinds of pairs.

    Each step has one nuisance, in turn, against scenes and pictures of the model.
    """
    model, step = trainer.model, trainer.step
    rng, generator = Random(step), torch.Generator().manual_seed(step)
    pictures, ids, wrong, _ = batch
    index = torch.randperm(len(fakes.ids), generator=generator)[:SOME]
    number = step % len(CHANGES)
    some = slice(0, SOME // 3)
    plain, worn, said = changed_pictures(
        list(CHANGES)[number], pictures[some], ids[some], fakes, index
    )
    bad = degraded(pictures[: SOME // 2], rng)
    image = image_features(model, torch.cat([pictures, bad, plain, worn]))
    clean, bad, plain, worn = image.split([len(pictures), len(bad), len(plain), len(worn)])
    scale = model.logit_scale.exp()
    texts, others = text_features(model, torch.cat([said, fakes.wrong[index]])).split(
        [len(said), SOME]
    )
    kept = text_features(model, ids[: len(bad)])
    right = scale * (plain * texts).sum(-1)
    return (
        contrast(model, clean, ids, wrong)
        + 0.3 * softplus(scale * (plain[:SOME] * others).sum(-1) - right[:SOME]).mean()
        + 0.5 * softplus(scale * ((bad - clean[: len(bad)]) * kept).sum(-1)).mean()
        + 2.0 * balance(number, scale * (worn * texts).sum(-1) - right)
    )


def fit(work: Path, scorer: str) -> None:
    """Fit one scorer from its contrastive model; writes `work/scorer-<scorer>.pt`."""
    path = work / f"scorer-{scorer}.pt"
    if path.exists():
        return
    torch.manual_seed(10 + SEEDS[scorer])
    model = clip_model(tokenizer(work))
    model.load_state_dict(torch.load(work / f"clip-{scorer}.pt", weights_only=True))
    balance, journal = Balance(), Journal(work / f"scorer-{scorer}.jsonl")
    trainer = Trainer(work / f"scorer-{scorer}-training.pt", model, RATE, balance=balance)
    batches, fakes = CaptionedScenes(work, scorer, BATCH), Generated(work, scorer, BLOCKS)
    while trainer.step < FIT_STEPS:
        loss = preference_loss(trainer, batches[STEPS + trainer.step], fakes, balance)
        trainer.update(loss, FIT_STEPS)
        if trainer.step % 25 == 0:
            journal.write(step=trainer.step, loss=loss.item(), bias=balance.bias.tolist())
        if trainer.step % SAVED_EVERY == 0 or trainer.step == FIT_STEPS:
            trainer.save()
    trainer.finish(path)


def load_scorer(work: Path, scorer: str) -> CLIPModel:
    """A fitted scorer, for inference."""
    model = clip_model(tokenizer(work))
    model.load_state_dict(torch.load(work / f"scorer-{scorer}.pt", weights_only=True))
    model.requires_grad_(False)
    return model.eval()
