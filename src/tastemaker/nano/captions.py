"""The caption grammar of `nano`: scenes, their captions and held-out splits.

A scene is one object (large, or small at a named place), two or three of a kind, or a pair of
different objects in a relation, on a coloured background, in one of the art styles. Splits are
disjoint by combination: what is named in the key of a scene (concepts, count, relation,
background, size, position) is hashed, and the hash alone decides the split. A combination of the
test split is therefore never drawn, in any style, for training.

Example:
    >>> scene = Scene(("dog", "tree"), relation="left", background="blue", style="soft")
    >>> caption(scene)
    'a dog left of a tree on a blue background, soft style'
    >>> caption(Scene(("apple",), count=2, named=frozenset()))
    'two apples'
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2b
from random import Random
from typing import Any

PLURALS: dict[str, str] = {
    "apple": "apples",
    "avocado": "avocados",
    "ball": "balls",
    "balloon": "balloons",
    "banana": "bananas",
    "beer": "beers",
    "burger": "burgers",
    "butterfly": "butterflies",
    "cactus": "cactuses",
    "car": "cars",
    "carrot": "carrots",
    "cat": "cats",
    "cherry": "cherries",
    "clock": "clocks",
    "dog": "dogs",
    "donut": "donuts",
    "eggplant": "eggplants",
    "fish": "fish",
    "flame": "flames",
    "frog": "frogs",
    "heart": "hearts",
    "house": "houses",
    "ladybug": "ladybugs",
    "moon": "moons",
    "mushroom": "mushrooms",
    "panda": "pandas",
    "penguin": "penguins",
    "pig": "pigs",
    "pineapple": "pineapples",
    "rainbow": "rainbows",
    "rocket": "rockets",
    "rose": "roses",
    "shirt": "shirts",
    "smiley": "smileys",
    "star": "stars",
    "strawberry": "strawberries",
    "sun": "suns",
    "tree": "trees",
    "umbrella": "umbrellas",
    "watermelon": "watermelons",
}
CONCEPTS: tuple[str, ...] = tuple(PLURALS)
BACKGROUNDS: tuple[str, ...] = (
    "white",
    "gray",
    "navy",
    "yellow",
    "green",
    "blue",
    "pink",
    "purple",
)
POSITIONS: dict[str, str] = {
    "left": "on the left",
    "right": "on the right",
    "top": "at the top",
    "bottom": "at the bottom",
    "centre": "in the centre",
}
RELATIONS: dict[str, str] = {
    "left": "left of",
    "right": "right of",
    "above": "above",
    "below": "below",
}
SIZES: tuple[str, ...] = ("small", "large")
STYLES: tuple[str, ...] = ("flat", "soft")
JUDGE_STYLES: tuple[str, ...] = (*STYLES, "bold")
NUMBERS: dict[int, str] = {2: "two", 3: "three"}
CLAUSES: frozenset[str] = frozenset({"size", "position", "background", "style"})

_SINGULAR = {plural: concept for concept, plural in PLURALS.items()}
# What phrases stand for, where a scene does not have the phrase itself.
_VALUES: dict[str, Any] = {
    words: value for table in (NUMBERS, POSITIONS, RELATIONS) for value, words in table.items()
}


def _any(words: Iterable[str]) -> str:
    return "|".join(words)


_GRAMMAR = re.compile(
    rf"(?:(?P<count>{_any(NUMBERS.values())}) (?P<plural>{_any(_SINGULAR)})"
    rf"|an? (?:(?P<size>{_any(SIZES)}) )?(?P<first>{_any(CONCEPTS)})"
    rf"(?: (?P<relation>{_any(RELATIONS.values())}) an? (?P<second>{_any(CONCEPTS)})"
    rf"| (?P<position>{_any(POSITIONS.values())}))?)"
    rf"(?: on a (?P<background>{_any(BACKGROUNDS)}) background)?"
    rf"(?:, (?P<style>{_any(JUDGE_STYLES)}) style)?"
)

# Upper ends of each split's part of the hash range; the order is part of the data's definition.
SPLITS: dict[str, float] = {"train": 0.70, "judge": 0.85, "validation": 0.92, "test": 1.0}


@dataclass(frozen=True, slots=True)
class Scene:
    """Content of one picture, and which of it the caption names.

    Attributes:
        concepts: One concept, or two for a pair.
        count: Number of objects of a single concept, 1 to 3; 1 for pairs.
        relation: Key of `RELATIONS`, where the first of a pair lies; empty otherwise.
        background: One of `BACKGROUNDS`.
        size: One of `SIZES` for a single object, empty otherwise.
        position: Key of `POSITIONS` for a small single object, empty otherwise.
        style: One of `JUDGE_STYLES`.
        named: The clauses that the caption spells out, a subset of `CLAUSES`.
    """

    concepts: tuple[str, ...]
    count: int = 1
    relation: str = ""
    background: str = "white"
    size: str = ""
    position: str = ""
    style: str = "flat"
    named: frozenset[str] = CLAUSES


def vocabulary() -> tuple[str, ...]:
    """All words of the grammar, sorted; each is one token of the text encoder."""
    words = {"a", "an", ",", "background", "style", "on"}
    words |= {*PLURALS, *PLURALS.values(), *BACKGROUNDS, *SIZES, *JUDGE_STYLES, *NUMBERS.values()}
    for phrase in (*POSITIONS.values(), *RELATIONS.values()):
        words |= set(phrase.split())
    return tuple(sorted(words))


def caption(scene: Scene) -> str:
    """The scene in words, as far as its clauses are named."""
    if scene.relation:
        first, second = scene.concepts
        words = f"{_one(first)} {RELATIONS[scene.relation]} {_one(second)}"
    elif scene.count > 1:
        words = f"{NUMBERS[scene.count]} {PLURALS[scene.concepts[0]]}"
    else:
        sized = scene.size if "size" in scene.named else ""
        words = _one(f"{sized} {scene.concepts[0]}".strip())
    if scene.position and "position" in scene.named:
        words += f" {POSITIONS[scene.position]}"
    if "background" in scene.named:
        words += f" on a {scene.background} background"
    if "style" in scene.named:
        words += f", {scene.style} style"
    return words


def parse(text: str) -> Scene:
    """Read a caption: the inverse of `caption`.

    Args:
        text: A prompt.

    Returns:
        The scene, whose attributes are those of an empty `Scene` where the caption names none.

    Raises:
        ValueError: If the text is not a caption of the grammar.

    Example:
        >>> scene = parse("a small dog at the top on a blue background")
        >>> scene.concepts, scene.size, scene.position, sorted(scene.named)
        (('dog',), 'small', 'top', ['background', 'position', 'size'])
    """
    found = _GRAMMAR.fullmatch(text)
    if found:
        said = {name: words for name, words in found.groupdict().items() if words}
        nouns = [said.pop(name) for name in ("first", "second") if name in said]
        concepts = tuple(nouns) or (_SINGULAR[said.pop("plural")],)
        named = CLAUSES & said.keys()
        values: dict[str, Any] = {key: _VALUES.get(words, words) for key, words in said.items()}
        scene = Scene(concepts, named=named, **values)
        if caption(scene) == text and len(set(concepts)) == len(concepts):
            return scene
    raise ValueError(f"{text!r} is not a caption of nano's grammar")


def split_of(scene: Scene) -> str:
    """The split to which the scene's combination belongs, whatever its style and wording."""
    key = "|".join(
        [
            "+".join(scene.concepts),
            str(scene.count),
            scene.relation,
            scene.background,
            scene.size,
            scene.position,
        ]
    )
    digest = blake2b(key.encode(), digest_size=8).digest()
    share = int.from_bytes(digest) / 2**64
    return next(name for name, end in SPLITS.items() if share < end)


def sample_scene(rng: Random, split: str) -> Scene:
    """Draw a scene of a split: 45% single objects, 25% two or three of a kind, 30% pairs.

    Args:
        rng: Source of randomness.
        split: Key of `SPLITS`.

    Returns:
        A scene; every clause is left out of the caption with a probability of 15 to 40%.

    Raises:
        ValueError: If the split is unknown.
    """
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}; known: {', '.join(SPLITS)}")
    while True:
        scene = _draw(rng, JUDGE_STYLES if split == "judge" else STYLES)
        if split_of(scene) == split:
            return scene


def prompts(split: str, number: int, seed: int = 0) -> list[str]:
    """Unique prompts of a split that name everything the splits are keyed on.

    Args:
        split: Key of `SPLITS`.
        number: How many.
        seed: Equal seeds give equal lists; a longer list begins with the shorter one.

    Returns:
        The prompts, in the order drawn.

    Raises:
        ValueError: If the split is unknown or has not that many prompts.

    Example:
        >>> prompts("test", 2) == prompts("test", 3)[:2]
        True
    """
    rng = Random(f"{split}/{seed}")
    found: dict[str, None] = {}
    for _ in range(1000 + 50 * number):
        if len(found) == number:
            break
        scene = sample_scene(rng, split)
        style = frozenset({"style"}) if rng.random() < 0.7 else frozenset[str]()
        keyed = CLAUSES - {"style"}
        found[caption(_renamed(scene, keyed | style))] = None
    if len(found) < number:
        raise ValueError(f"split {split!r} gave {len(found)} unique prompts, {number} asked")
    return list(found)


def _one(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def _renamed(scene: Scene, named: frozenset[str]) -> Scene:
    return Scene(
        scene.concepts,
        scene.count,
        scene.relation,
        scene.background,
        scene.size,
        scene.position,
        scene.style,
        named,
    )


def _draw(rng: Random, styles: tuple[str, ...]) -> Scene:
    background, style = rng.choice(BACKGROUNDS), rng.choice(styles)
    kept = {"background": 0.85, "style": 0.8, "size": 0.75, "position": 0.85}
    named = frozenset(clause for clause, chance in kept.items() if rng.random() < chance)
    kind = rng.random()
    if kind < 0.30:
        pair = (rng.choice(CONCEPTS), rng.choice(CONCEPTS))
        while pair[0] == pair[1]:
            pair = (rng.choice(CONCEPTS), rng.choice(CONCEPTS))
        return Scene(pair, 1, rng.choice(list(RELATIONS)), background, "", "", style, named)
    concept = (rng.choice(CONCEPTS),)
    if kind < 0.55:
        return Scene(concept, rng.choice((2, 3)), "", background, "", "", style, named)
    if rng.random() < 0.45:
        return Scene(concept, 1, "", background, "large", "", style, named)
    position = rng.choice(list(POSITIONS))
    return Scene(concept, 1, "", background, "small", position, style, named)
