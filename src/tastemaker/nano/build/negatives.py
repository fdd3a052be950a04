"""Hard negatives: the same scene with one thing changed that its caption names."""

from dataclasses import replace
from random import Random

from tastemaker.nano.captions import BACKGROUNDS, CONCEPTS, POSITIONS, RELATIONS, Scene


def changed(scene: Scene, rng: Random) -> Scene:
    """The scene with one attribute changed: concept, count, relation, background or place.

    Only attributes that the caption names are changed, so the new scene contradicts the caption.

    Args:
        scene: The scene to depart from.
        rng: Source of randomness.

    Returns:
        A scene with the same clauses named; its combination may belong to any split.
    """
    kind = rng.choice(changes(scene))
    if kind == "concept":
        slot = rng.randrange(len(scene.concepts))
        concepts = list(scene.concepts)
        concepts[slot] = rng.choice([name for name in CONCEPTS if name not in scene.concepts])
        return replace(scene, concepts=tuple(concepts))
    if kind == "order":
        return replace(scene, concepts=scene.concepts[::-1])
    if kind == "relation":
        other = [name for name in RELATIONS if name != scene.relation]
        return replace(scene, relation=rng.choice(other))
    if kind == "background":
        other = [name for name in BACKGROUNDS if name != scene.background]
        return replace(scene, background=rng.choice(other))
    if kind == "count":
        return _recounted(scene, rng)
    if kind == "size":
        size, place = ("small", "centre") if scene.size == "large" else ("large", "")
        return replace(scene, size=size, position=place)
    other = [name for name in POSITIONS if name != scene.position]
    return replace(scene, position=rng.choice(other))


def changes(scene: Scene) -> list[str]:
    """Return the attributes that `changed` may change; concepts twice, for they matter most."""
    kinds = ["concept", "concept"]
    if scene.relation:
        kinds += ["order", "relation"]
    else:
        kinds += ["count"]
    if "background" in scene.named:
        kinds += ["background"]
    if scene.size and "size" in scene.named:
        kinds += ["size"]
    if scene.position and "position" in scene.named:
        kinds += ["position"]
    return kinds


def _recounted(scene: Scene, rng: Random) -> Scene:
    count = rng.choice([number for number in (1, 2, 3) if number != scene.count])
    if count > 1:
        return replace(scene, count=count, size="", position="")
    return replace(scene, count=1, size="small", position=rng.choice(list(POSITIONS)))
