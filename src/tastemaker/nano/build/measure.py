"""Held-out figures of the scorers and of the model they score."""

from dataclasses import replace
from itertools import combinations
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL
from numpy.typing import NDArray
from torch import Tensor
from transformers import CLIPModel, CLIPTokenizer

from tastemaker.nano.build.art import SETS, sprites
from tastemaker.nano.build.clip import image_features, text_features
from tastemaker.nano.build.code import as_bytes, to_float
from tastemaker.nano.build.generated import FASTER
from tastemaker.nano.build.journal import Journal
from tastemaker.nano.build.negatives import changed
from tastemaker.nano.build.pipeline import draw, snapshot
from tastemaker.nano.build.scorers import degraded, load_scorer, scores
from tastemaker.nano.build.text import tokenize, tokenizer
from tastemaker.nano.build.vae import load, to_tensor
from tastemaker.nano.captions import CONCEPTS, STYLES, Scene, caption, sample_scene
from tastemaker.nano.obedience import Obedience

SCORERS = ("preference", "judge")
PROMPTS = 64
IMAGES = 8
SCENES = 512

Floats = NDArray[np.float64]


def ranks(values: Floats) -> Floats:
    """Ranks along the last axis, from zero; ties do not occur in real scores."""
    order: Floats = values.argsort(-1).argsort(-1).astype(np.float64)
    return order


def within_prompt(first: Floats, second: Floats) -> float:
    """Mean over prompts of the rank correlation between two scorers' scores.

    Args:
        first: Scores, (prompts, images).
        second: Scores of the same pictures by another scorer.

    Returns:
        Spearman's correlation, averaged over prompts.

    Example:
        >>> within_prompt(np.array([[1.0, 2.0, 3.0]]), np.array([[2.0, 4.0, 9.0]]))
        1.0
    """
    a, b = (ranks(x) - ranks(x).mean(-1, keepdims=True) for x in (first, second))
    product = (a * b).sum(-1) / np.sqrt((a**2).sum(-1) * (b**2).sum(-1))
    return float(round(product.mean(), 6))


@torch.no_grad()
def measure(work: Path) -> dict[str, Any]:
    """All figures, on scenes of the test split; written to `work/measure.jsonl` as well."""
    journal, found = Journal(work / "measure.jsonl"), dict[str, Any]()
    rng, words, vae = Random("measure"), tokenizer(work), load(work)
    asked = [sample_scene(rng, "test") for _ in range(PROMPTS)]
    captions = [caption(scene) for scene in asked for _ in range(IMAGES)]
    fakes = draw(snapshot(work), captions, list(range(len(captions))), steps=FASTER)
    pixels, ids = to_tensor(fakes), tokenize(words, captions)
    tables: dict[str, Floats] = {}
    for scorer in SCORERS:
        model = load_scorer(work, scorer)
        tables[scorer] = scores(model, pixels, ids).view(PROMPTS, IMAGES).double().numpy()
        found[scorer] = {
            **_accuracies(model, words, vae, Random(scorer), work),
            "concept_top1_generated": _top1(model, words, pixels[::IMAGES], asked),
            "mean_generated": float(tables[scorer].mean()),
            "mean_best_of_8": float(tables[scorer].max(1).mean()),
            "spread_within_prompt": float(tables[scorer].std(1).mean()),
        }
    for name in ("checker", "examiner"):
        table = Obedience(name, "all", obeyed=False)(fakes, captions)
        tables[name] = table.view(PROMPTS, IMAGES).double().numpy()
    found["rank_correlation"] = {
        f"{one} and {other}": within_prompt(tables[one], tables[other])
        for one, other in combinations(tables, 2)
    }
    journal.write(**found)
    return found


def _accuracies(
    model: CLIPModel, words: CLIPTokenizer, vae: AutoencoderKL, rng: Random, work: Path
) -> dict[str, float]:
    """Shares on 512 test scenes through the autoencoder; the concept also in other sets of art."""
    found = {}
    for styles in (STYLES, *((style,) for style in SETS if style not in STYLES)):
        drawn = [sample_scene(rng, "test") for _ in range(SCENES)]
        scenes = [replace(each, style=rng.choice(styles)) for each in drawn]
        raw = to_float(as_bytes(scenes, rng, sprites(work, styles)))
        pictures = torch.cat([vae(part).sample.clamp(-1, 1) for part in raw.split(32)])
        if styles != STYLES:
            unnamed = [replace(each, named=each.named - {"style"}) for each in scenes]
            found[f"concept_top1_{styles[0]}"] = _top1(model, words, pictures, unnamed)
            continue
        found["concept_top1_drawn"] = _top1(model, words, pictures, scenes)
        image = image_features(model, pictures)
        matched = _cosines(model, words, image, scenes)
        other = [sample_scene(rng, "test") for _ in scenes]
        found["matched_easy"] = _over(matched, _cosines(model, words, image, other))
        near = [changed(scene, rng) for scene in scenes]
        found["matched_one_attribute"] = _over(matched, _cosines(model, words, image, near))
        worse = image_features(model, degraded(pictures, rng))
        found["clean_over_degraded"] = _over(matched, _cosines(model, words, worse, scenes))
    return found


def _cosines(model: CLIPModel, words: CLIPTokenizer, image: Tensor, scenes: list[Scene]) -> Tensor:
    ids = tokenize(words, [caption(scene) for scene in scenes])
    return (image * text_features(model, ids)).sum(-1)


def _over(first: Tensor, second: Tensor) -> float:
    return float((first > second).float().mean())


def _top1(model: CLIPModel, words: CLIPTokenizer, pictures: Tensor, asked: list[Scene]) -> float:
    """Return the share of pictures of one kind of object that fit its concept best, among all."""
    chosen = [number for number, scene in enumerate(asked) if not scene.relation]
    right = 0
    for number in chosen:
        options = [replace(asked[number], concepts=(name,)) for name in CONCEPTS]
        texts = text_features(model, tokenize(words, [caption(one) for one in options]))
        image = image_features(model, pictures[number : number + 1])
        right += CONCEPTS[int((texts @ image[0]).argmax())] == asked[number].concepts[0]
    return right / max(1, len(chosen))
