"""Obedience: does a picture show what its prompt asks, attribute by attribute, as GenEval asks.

The prompt is read back by the grammar, the picture by a network of `attributes`.

References:
    Ghosh et al. (GenEval), arXiv 2310.11513: objects, counts, colours and relations by a detector.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from tastemaker.core.errors import TastemakerError
from tastemaker.nano.attributes import SIDE, Attributes, shipped
from tastemaker.nano.captions import (
    BACKGROUNDS,
    CONCEPTS,
    POSITIONS,
    RELATIONS,
    SIZES,
    STYLES,
    Scene,
    parse,
)
from tastemaker.scorers.pixels import unit_pixels

Questions = dict[str, tuple[Tensor, list[int]]]
"""By attribute: log-probabilities [questions, alternatives], and which alternative is asked for."""

_PLACES = list(POSITIONS)
# Where the first and the second of a pair lie, by the pair's relation.
_PAIR = {"left": "left", "right": "right", "above": "top", "below": "bottom"}
_FIRST = [_PLACES.index(place) for place in _PAIR.values()]
_SECOND = [_FIRST[number] for number in (1, 0, 3, 2)]


def questions(seen: Attributes, scene: Scene) -> Questions:
    """Ask one picture about everything that a prompt names.

    Args:
        seen: Logits of this picture, without the dimension of pictures.
        scene: The prompt, read by `parse`.

    Returns:
        `concept` (each one asked for is there), `count` (in the number asked for), `only` (nothing
        else is), and as far as the prompt names them `place` (relation or position), `size`,
        `background` and `style`.
    """
    counts = seen.counts.log_softmax(-1)
    there = torch.stack([counts[:, 0], counts[:, 1:].logsumexp(-1)], -1)
    asked = [CONCEPTS.index(concept) for concept in scene.concepts]
    others = [number for number in range(len(CONCEPTS)) if number not in asked]
    numbers = seen.counts[asked, 1:].log_softmax(-1)
    found: Questions = {
        "concept": (there[asked], [1] * len(asked)),
        "count": (numbers, [scene.count - 1] * len(asked)),
        "only": (there[others], [0] * len(others)),
    }
    places = seen.places[asked]
    if scene.relation:
        pairs = places[0, _FIRST] + places[1, _SECOND]
        found["place"] = pairs[None].log_softmax(-1), [list(RELATIONS).index(scene.relation)]
    elif "position" in scene.named and scene.position:
        found["place"] = places.log_softmax(-1), [_PLACES.index(scene.position)]
    for name, logits, options in (
        ("size", seen.sizes, SIZES),
        ("background", seen.backgrounds, BACKGROUNDS),
        ("style", seen.styles, STYLES),
    ):
        asked_for = getattr(scene, name)
        if name in scene.named and asked_for:
            found[name] = logits[None].log_softmax(-1), [options.index(asked_for)]
    return found


def together(asked: Questions) -> Questions:
    """Return what "all" asks: everything but the style, which is drawn too poorly to be read."""
    return {name: question for name, question in asked.items() if name != "style"}


def wrong(options: Tensor, answers: list[int]) -> Tensor:
    """Count the questions of an attribute whose most probable answer is not the one asked for."""
    return (options.argmax(-1) != options.new_tensor(answers)).sum()


class Obedience:
    """`score = log P(the picture shows all that the prompt asks)`, or 1 where it does and 0 if not.

    The logarithms of the attributes' probabilities are summed as if they were independent. The most
    probable answer to each question decides whether it is obeyed.

    Args:
        name: Key of `attributes.NETWORKS`.
        attribute: "all" (see `together`), or one attribute of `questions` alone. Where a prompt
            does not name it, the picture obeys.
        obeyed: Give 1 or 0, which passes no gradient.
    """

    def __init__(self, name: str, attribute: str, obeyed: bool) -> None:
        self.network = shipped(name)
        self.attribute, self.obeyed = attribute, obeyed

    def to(self, device: torch.device, dtype: torch.dtype) -> Self:
        """Move the network; return the scorer."""
        self.network.to(device, dtype)
        return self

    @torch.no_grad()
    def __call__(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> Tensor:
        """Score pictures, resized to 64x64. See `Scorer`."""
        if not images:
            return torch.empty(0)
        pixels = torch.cat([_sized(unit_pixels(image)) for image in images])
        return self._scored(pixels.to(next(self.network.parameters()).device), prompts)

    def score_pixels(self, pixels: Tensor, prompts: Sequence[str]) -> Tensor:
        """Score pixels in [0, 1], with gradient. See `PixelScorer`.

        Raises:
            TastemakerError: The score is 0 or 1.
        """
        if self.obeyed:
            raise TastemakerError("obeyed=true passes no gradient; train on obeyed=false")
        return self._scored(_sized(pixels), prompts)

    def _scored(self, pixels: Tensor, prompts: Sequence[str]) -> Tensor:
        scenes = [_read(prompt) for prompt in prompts]
        weights = next(self.network.parameters())
        seen: Attributes = self.network((2 * pixels - 1).to(weights.dtype))
        logits = [getattr(seen, name).float() for name in Attributes.__slots__]
        return torch.stack(
            [
                self._score(Attributes(*each), scene)
                for *each, scene in zip(*logits, scenes, strict=True)
            ]
        )

    def _score(self, seen: Attributes, scene: Scene) -> Tensor:
        asked = together(every := questions(seen, scene))
        if self.attribute != "all":
            asked = {name: part for name, part in every.items() if name == self.attribute}
        score = seen.counts.new_zeros(())
        for options, answers in asked.values():
            if self.obeyed:
                score = score + wrong(options, answers)
            else:
                score = score + options[range(len(answers)), answers].sum()
        return (score == 0).float() if self.obeyed else score


def _sized(pixels: Tensor) -> Tensor:
    """Resize pixels to 64x64 where they are not, bicubic with antialiasing."""
    if pixels.shape[-2:] == (SIDE, SIDE):
        return pixels.float()
    return F.interpolate(pixels.float(), (SIDE, SIDE), mode="bicubic", antialias=True).clamp(0, 1)


def _read(prompt: str) -> Scene:
    try:
        scene = parse(prompt)
    except ValueError as error:
        raise TastemakerError(f"{error}; its scorers read prompts such as 'two apples'") from None
    if "style" in scene.named and scene.style not in STYLES:
        raise TastemakerError(f"{prompt!r}: known styles are {', '.join(STYLES)}")
    return scene
