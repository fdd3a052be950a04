"""Plans of pools: prompts x draws as candidates with their seeds, made when they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tastemaker.core.errors import TastemakerError
from tastemaker.core.seeding import keyed_seed

MOST_IMAGES = 4_000_000
"""Most images of a pool."""


@dataclass(frozen=True)
class Item:
    """One candidate to sample.

    Args:
        prompt: Its prompt.
        seed: Seed of its noise.
        source_id: The real image that it belongs to; empty where there is none.
        timestep: Start of its reconstruction; None for a sample from noise.
        size: Height and width in pixels; None for the configuration's.
        picture: File of an IP-Adapter's picture; None without one.
    """

    prompt: str
    seed: int
    source_id: str = ""
    timestep: int | None = None
    size: tuple[int, int] | None = None
    picture: Path | None = None


@dataclass(frozen=True)
class RealImage:
    """A real image that candidates are sampled for.

    Args:
        candidate_id: Its id.
        caption: Its caption.
        size: Height and width in pixels.
    """

    candidate_id: str
    caption: str
    size: tuple[int, int]


class Plan:
    """Candidates of a pool in order; none is in memory before its shard's turn.

    Args:
        number: How many.
        item: Function from a candidate's position to the candidate.

    Raises:
        TastemakerError: They are more than `MOST_IMAGES`.

    Example:
        >>> three = plan(["a cat", "a dog"], draws=2, seed=0)
        >>> len(three), [item.prompt for item in three.shard(1, 3)]
        (4, ['a dog'])
    """

    def __init__(self, number: int, item: Callable[[int], Item]) -> None:
        if number > MOST_IMAGES:
            raise TastemakerError(
                f"{number} images are more than the {MOST_IMAGES} that a pool may have; ask for"
                " fewer per prompt or real image, or cut the prompts into parts."
            )
        self.number = number
        self.item = item

    def __len__(self) -> int:
        return self.number

    def shards(self, size: int) -> int:
        """Return the number of shards of `size` candidates, of which the last may be smaller."""
        return -(-self.number // size)

    def shard(self, index: int, size: int) -> list[Item]:
        """Make the candidates of one shard of `size`."""
        return [self.item(i) for i in range(self.number)[index * size : (index + 1) * size]]


def plan(prompts: Sequence[str], draws: int, seed: int) -> Plan:
    """List the candidates of a pool, prompt by prompt.

    An image's seed depends on the run's seed, its prompt and its draw alone: adding prompts or
    draws leaves the other images as they are.

    Args:
        prompts: Unique prompts.
        draws: Images per prompt.
        seed: The run's seed.

    Returns:
        `len(prompts) * draws` candidates.

    Raises:
        TastemakerError: They are more than `MOST_IMAGES`.
    """

    def item(i: int) -> Item:
        prompt, draw = prompts[i // draws], i % draws
        return Item(prompt, keyed_seed(seed, "image", prompt, draw))

    return Plan(len(prompts) * draws, item)


def plan_items(real: Sequence[RealImage], draws: int, seed: int) -> Plan:
    """List candidates for the captions of real images, image by image, each of its image's size.

    Args:
        real: The images.
        draws: Candidates per image; images of equal captions have candidates of their own.
        seed: The run's seed.

    Returns:
        `len(real) * draws` candidates.

    Raises:
        TastemakerError: They are more than `MOST_IMAGES`.
    """

    def item(i: int) -> Item:
        image, draw = real[i // draws], i % draws
        key = keyed_seed(seed, "image", image.candidate_id, image.caption, draw)
        return Item(image.caption, key, image.candidate_id, size=image.size)

    return Plan(len(real) * draws, item)


def plan_reconstructions(real: Sequence[RealImage], timesteps: Sequence[int], seed: int) -> Plan:
    """List the reconstructions of real images, timestep by timestep.

    Args:
        real: The images.
        timesteps: Timesteps that they start at.
        seed: The run's seed; the noise is keyed by image and timestep.

    Returns:
        `len(real) * len(timesteps)` candidates.

    Raises:
        TastemakerError: They are more than `MOST_IMAGES`.
    """

    def item(i: int) -> Item:
        timestep, image = timesteps[i // len(real)], real[i % len(real)]
        key = keyed_seed(seed, "reconstruct", image.candidate_id, timestep)
        return Item(image.caption, key, image.candidate_id, timestep, image.size)

    return Plan(len(real) * len(timesteps), item)
