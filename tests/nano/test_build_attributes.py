"""Training of the checker and the examiner: labels by hand, exact resume, discs for art."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from tastemaker.nano.attributes import NETWORKS
from tastemaker.nano.build.attribute_networks import Trainer
from tastemaker.nano.build.attribute_scenes import TAUGHT, UNSEEN, LabelledScenes, labels
from tastemaker.nano.captions import CONCEPTS, STYLES, Scene

STEPS = 4


def test_labels_by_hand() -> None:
    dog, tree = CONCEPTS.index("dog"), CONCEPTS.index("tree")
    counts, places, *rest = labels(Scene(("tree", "dog"), 1, "below", "navy", style="soft"))
    assert [counts[dog], counts[tree], sum(counts)] == [1, 1, 2]
    assert [places[dog], places[tree], sum(places)] == [2, 3, 2 + 3 - 38]  # at the top, the bottom
    assert rest == [-1, 2, 1]
    counts, places, *rest = labels(Scene(("dog",), 3, background="white", style="bold"))
    assert [counts[dog], sum(counts), set(places), rest] == [3, 3, {-1}, [-1, 0, -1]]


def test_both_learn_what_the_model_draws_and_apart() -> None:
    assert set(TAUGHT["checker"]) & set(TAUGHT["examiner"]) == set(STYLES)
    for name, styles in TAUGHT.items():
        assert set(STYLES) < set(styles)
        assert not set(styles) & set(UNSEEN[name])


def trained(work: Path, name: str, steps: int) -> Trainer:
    trainer, batches = Trainer(work, name), LabelledScenes(work, name, 6)
    trainer.network.train()
    while trainer.step < steps:
        trainer.update(*batches[trainer.step], STEPS)
    trainer.save()
    return trainer


@pytest.mark.parametrize("name", list(NETWORKS))
def test_a_resumed_training_equals_an_undisturbed_one(
    work: Path, tmp_path_factory: pytest.TempPathFactory, name: str
) -> None:
    other = tmp_path_factory.mktemp("work") / "undisturbed"
    shutil.copytree(work, other)
    trained(work, name, 2)
    resumed = trained(work, name, STEPS).network.state_dict()
    undisturbed = trained(other, name, STEPS).network.state_dict()
    assert all(torch.equal(resumed[key], value) for key, value in undisturbed.items())
