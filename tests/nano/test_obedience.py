"""Obedience to a prompt: captions read back, probabilities by hand, shipped networks on scenes."""

from __future__ import annotations

import math
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tastemaker.core.errors import TastemakerError
from tastemaker.core.registry import SCORERS
from tastemaker.nano import CHECKER, EXAMINER
from tastemaker.nano.attributes import Attributes
from tastemaker.nano.captions import (
    CONCEPTS,
    POSITIONS,
    SPLITS,
    Scene,
    caption,
    parse,
    prompts,
    sample_scene,
)
from tastemaker.nano.obedience import questions

NAMES = ["nano_checker", "nano_examiner"]
COUNTED = Path(__file__).parents[2] / "benchmarks" / "obedience" / "sheet.png"
DOG, TREE, CAT = (CONCEPTS.index(each) for each in ("dog", "tree", "cat"))


@given(st.integers(0, 10**9), st.sampled_from(list(SPLITS)))
def test_a_caption_is_read_back(seed: int, split: str) -> None:
    scene = sample_scene(Random(seed), split)
    read = parse(caption(scene))
    assert caption(read) == caption(scene)
    assert (read.concepts, read.count, read.relation) == (
        scene.concepts,
        scene.count,
        scene.relation,
    )
    assert all(getattr(read, clause) == getattr(scene, clause) for clause in read.named)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "an dog",
        "two dog",
        "two dogs in the centre",
        "a small dog left of a tree",
        "a dog left of a tree at the top",
        "a dog left of a dog",
        "a dog, bright style",
        "A dog",
    ],
)
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a caption"):
        parse(text)


def seen(**logits: dict[tuple[int, ...], float]) -> Attributes:
    """What a network says of one picture: zeros, but for the logits given."""
    shapes = {
        "counts": (len(CONCEPTS), 4),
        "places": (len(CONCEPTS), len(POSITIONS)),
        "sizes": (2,),
        "backgrounds": (8,),
        "styles": (2,),
    }
    tensors = {name: torch.zeros(shape) for name, shape in shapes.items()}
    for name, values in logits.items():
        for index, value in values.items():
            tensors[name][index] = value
    return Attributes(**tensors)


def probability(asked: tuple[torch.Tensor, list[int]]) -> float:
    options, answers = asked
    return math.exp(options[range(len(answers)), answers].sum().item())


def test_probabilities_by_hand() -> None:
    # Of numbers 0 to 3 odds 1 : 1 : 6 : 1; of the others, all equal: absent is one of four.
    found = questions(seen(counts={(DOG, 2): math.log(6)}), parse("two dogs on a blue background"))
    assert set(found) == {"concept", "count", "only", "background"}
    assert probability(found["concept"]) == pytest.approx(8 / 9)
    assert probability(found["count"]) == pytest.approx(6 / 8)
    assert probability(found["only"]) == pytest.approx(0.25**39)
    assert probability(found["background"]) == pytest.approx(1 / 8)


@pytest.mark.parametrize(
    ("relation", "expected"), [("left", 6 / 9), ("right", 1 / 9), ("above", 1 / 9)]
)
def test_a_relation_is_both_places(relation: str, expected: float) -> None:
    # The dog is on the left with odds 2, the tree on the right with odds 3, else all are equal.
    places = {(DOG, 0): math.log(2), (TREE, 1): math.log(3)}
    found = questions(seen(places=places), Scene(("dog", "tree"), 1, relation))
    assert probability(found["place"]) == pytest.approx(expected)
    turned = {"left": "right", "right": "left", "above": "below"}[relation]
    other = questions(seen(places=places), Scene(("tree", "dog"), 1, turned))
    assert probability(other["place"]) == pytest.approx(expected)


@pytest.fixture(scope="module", params=NAMES)
def scorer(request: pytest.FixtureRequest) -> Any:
    """Each shipped network, as registered."""

    def make(**options: Any) -> Any:
        return SCORERS.bind(request.param, options)()

    return make


@pytest.fixture(scope="module")
def pictures() -> list[Image.Image]:
    """Pictures that the base drew for the first test prompts."""
    whole = Image.open(COUNTED).convert("RGB")
    return [whole.crop((64 * n, 0, 64 * n + 64, 64)) for n in range(10)]


def test_the_sum_of_its_attributes(scorer: Any, pictures: list[Image.Image]) -> None:
    texts = prompts("test", 10)
    names = ["concept", "count", "only", "place", "size", "background"]
    parts = torch.stack([scorer(attribute=name)(pictures, texts) for name in names])
    whole = scorer()(pictures, texts)
    torch.testing.assert_close(parts.sum(0), whole, atol=1e-4, rtol=1e-4)
    obeyed = torch.stack([scorer(attribute=name, obeyed=True)(pictures, texts) for name in names])
    assert torch.equal(obeyed.prod(0), scorer(obeyed=True)(pictures, texts))
    # An answer of over one half is the most probable one.
    assert (whole.exp()[obeyed.prod(0) == 0] <= 0.5).all()


def test_batches_and_gradients_enter_no_number(scorer: Any, pictures: list[Image.Image]) -> None:
    texts = prompts("test", 10)
    whole = scorer()(pictures, texts)
    alone = torch.cat([scorer()([i], [p]) for i, p in zip(pictures, texts, strict=True)])
    torch.testing.assert_close(alone, whole, atol=1e-3, rtol=1e-4)
    larger = [each.resize((128, 128), Image.Resampling.BICUBIC) for each in pictures]
    assert (scorer(attribute="concept", obeyed=True)(larger, texts)).mean() >= 0.7
    pixels = torch.rand(2, 3, 64, 64, requires_grad=True)
    scorer().score_pixels(pixels, texts[:2]).sum().backward()
    assert pixels.grad is not None
    assert pixels.grad.abs().sum((1, 2, 3)).min() > 0
    with pytest.raises(TastemakerError, match="passes no gradient"):
        scorer(obeyed=True).score_pixels(pixels, texts[:2])
    assert scorer()([], []).shape == (0,)


@pytest.mark.parametrize("prompt", ["a photograph of a dog", "a dog, bold style"])
def test_prompts_it_cannot_read(scorer: Any, pictures: list[Image.Image], prompt: str) -> None:
    with pytest.raises(TastemakerError, match="prompt|style"):
        scorer()(pictures[:1], [prompt])


def test_it_reads_the_prompt_that_was_drawn(scorer: Any, pictures: list[Image.Image]) -> None:
    texts = prompts("test", 10)
    wins = scorer()(pictures, texts) > scorer()(pictures, texts[1:] + texts[:1])
    assert wins.float().mean() >= 0.8


def test_weights_are_small() -> None:
    assert max(CHECKER.stat().st_size, EXAMINER.stat().st_size) <= 2_000_000
