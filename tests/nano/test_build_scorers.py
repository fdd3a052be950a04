"""Training of the two CLIP scorers: patches and balance by hand, exact resume, discs for art."""

from __future__ import annotations

import shutil
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch

from tastemaker.nano.build import scorers
from tastemaker.nano.build.captioned_scenes import ART, CaptionedScenes, cells_of
from tastemaker.nano.build.clip import clip_model, text_features
from tastemaker.nano.build.contrastive import Trainer, loss_of
from tastemaker.nano.build.generated import BLOCK
from tastemaker.nano.build.text import tokenize, tokenizer
from tastemaker.nano.captions import CONCEPTS, STYLES, split_of

STEPS = 4


def test_each_scorer_has_art_of_its_own_beside_what_the_model_draws() -> None:
    assert set(ART["preference"]) & set(ART["judge"]) == set(STYLES)


def test_patches_by_hand() -> None:
    """A side of 20 pixels around (20, 20) covers the middles at 12, 20 and 28."""
    cells = cells_of([("tree", (20.0, 20.0, 20.0))])
    assert {number for number, cell in enumerate(cells) if cell} == {
        8 * row + column for row in (1, 2, 3) for column in (1, 2, 3)
    }
    assert set(cells) == {0, 1 + CONCEPTS.index("tree")}


def test_no_scene_is_of_a_split_that_is_measured_on(work: Path) -> None:
    scenes = CaptionedScenes(work, "judge", 16).scenes(Random(0))
    assert {split_of(scene) for scene in scenes[:8]} == {"judge"}
    assert {split_of(scene) for scene in scenes[8:]} <= {"train", "judge"}
    assert all(one != other for one, other in zip(scenes[:8], scenes[8:], strict=True))


def test_a_balance_pushes_only_what_wins() -> None:
    balance = scorers.Balance()
    wins = torch.ones(4, requires_grad=True)
    for _ in range(50):
        balance(0, wins)
        loss = balance(1, -wins)
    assert balance.bias[0] == pytest.approx(np.tanh(1), abs=0.01)
    assert loss.item() == 0  # a nuisance that loses is left alone
    assert balance(0, wins).item() == pytest.approx((np.tanh(1) + 0.1) * np.tanh(1), abs=0.01)


def test_padding_changes_no_caption(work: Path) -> None:
    words = tokenizer(work)
    model = clip_model(words).eval()
    short = tokenize(words, ["a dog"])
    both = tokenize(words, ["a dog", "a dog left of a tree on a blue background, soft style"])
    assert torch.allclose(text_features(model, short)[0], text_features(model, both)[0], atol=1e-5)


def trained(work: Path, steps: int, fit: bool) -> Trainer:
    torch.manual_seed(3)
    balance = scorers.Balance()
    model = clip_model(tokenizer(work))
    trainer = Trainer(work / "training.pt", model, 1e-3, balance=balance)
    batches = CaptionedScenes(work, "judge", 4)
    fakes = scorers.Generated(work, "judge", 1)
    while trainer.step < steps:
        batch = batches[trainer.step]
        if fit:
            loss = scorers.preference_loss(trainer, batch, fakes, balance)
        else:
            loss = loss_of(trainer, batch)
        trainer.update(loss, STEPS)
    trainer.save()
    return trainer


@pytest.mark.parametrize("fit", [False, True])
def test_a_resumed_training_equals_an_undisturbed_one(
    work: Path, tmp_path_factory: pytest.TempPathFactory, fit: bool
) -> None:
    folder = work / "generated" / "judge"
    folder.mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (BLOCK, 64, 64, 3), dtype=np.uint8)
    for guidance in (scorers.GUIDANCE, scorers.WEAKER):
        np.save(folder / f"{guidance}-00.npy", pixels)
    other = tmp_path_factory.mktemp("work") / "undisturbed"
    shutil.copytree(work, other)
    trained(work, 2, fit)
    resumed = trained(work, STEPS, fit).both.state_dict()
    undisturbed = trained(other, STEPS, fit).both.state_dict()
    assert all(torch.equal(resumed[key], value) for key, value in undisturbed.items())


def test_degraded_pictures_stay_in_range_and_differ() -> None:
    pictures = torch.zeros(6, 3, 64, 64)
    pictures[:, :, 16:48, 16:48] = 0.5
    worse = scorers.degraded(pictures, Random(1))
    assert worse.shape == pictures.shape
    assert worse.abs().max() <= 1
    assert all(not torch.equal(one, other) for one, other in zip(pictures, worse, strict=True))
