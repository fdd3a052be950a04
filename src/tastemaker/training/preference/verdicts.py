"""Single verdicts: images of a scored pool, each desirable or undesirable by itself."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tastemaker.config.training import TrainConfig
from tastemaker.core.content_hash import file_content
from tastemaker.core.errors import TastemakerError
from tastemaker.core.seeding import keyed_seed
from tastemaker.preflight import expect_columns
from tastemaker.storage.groups import score_keys
from tastemaker.storage.pool import Pool
from tastemaker.training.batches import pair_index
from tastemaker.training.encoding_plan import Examples
from tastemaker.training.preference.data import PairBatches
from tastemaker.training.preference.pairs import PoolImages, open_pairs


class Verdicts(PoolImages):
    """Examples of one image each; the gap is its score above the threshold.

    Args:
        pool: A scored pool.
        config: Column of scores and threshold.
    """

    def __init__(self, pool: Pool, config: TrainConfig) -> None:
        super().__init__(pool.shards(), str(pool.folder))
        self.pool, self.column = pool, config.verdicts
        self.threshold = config.verdict_threshold

    def identity(self) -> Any:
        """Return the contents of the pool's shards and of the scores, and the threshold."""
        keys = score_keys(self.pool, [str(self.column)])
        return [keys, self.threshold, *map(file_content, self.shards)]

    def rows(self) -> Iterator[tuple[tuple[str, ...], str, float]]:
        """Yield id, prompt and gap of each image that has a score."""
        for table in self.pool.scored_shards():
            for row in table.select(["candidate_id", "prompt", self.column]).to_pylist():
                if row[self.column] is not None:
                    gap = row[self.column] - self.threshold
                    yield (row["candidate_id"],), row["prompt"], gap


@dataclass(frozen=True, eq=False)
class VerdictBatches(PairBatches):
    """Draws a desirable and an undesirable image per sample, independently, each with its prompt.

    An epoch of either label is a permutation: both count alike, however rare one is.

    Raises:
        TastemakerError: All images have one label, or images have several sizes.
    """

    def __post_init__(self) -> None:
        """Check that both labels are there."""
        if len(self.data.latents.shapes) > 1:
            raise TastemakerError("train.verdicts needs images of one size; import them at one.")
        for name, side in zip(("desirable", "undesirable"), self._labels, strict=True):
            if not len(side):
                raise TastemakerError(
                    f"no image is {name}: move train.verdict_threshold between the scores of"
                    f" {self.config.verdicts!r}."
                )

    @functools.cached_property
    def _labels(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Examples whose score reaches the threshold, and the others."""
        desirable = torch.from_numpy(self.data.examples["gap"] >= 0)
        return desirable.nonzero()[:, 0], (~desirable).nonzero()[:, 0]

    def pairs(self, step: int, samples: Sequence[int]) -> torch.Tensor:
        """Choose the images of some samples: indices [samples, 2], the desirable one first."""
        chosen = []
        for label, side in enumerate(self._labels):
            seed = keyed_seed(self.config.seed, "verdicts", label)
            places = [pair_index(sample, len(side), seed) for sample in samples]
            chosen.append(side[places])
        return torch.stack(chosen, 1)

    def sides(self, pairs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return rows of images and prompts, the desirable ones first, and their scores' gaps."""
        flat, (chosen, rejected) = pairs.T.reshape(-1), pairs.T
        gaps = self.data.gaps(chosen) - self.data.gaps(rejected)
        return self.data.images(flat), self.data.prompts(flat), gaps


def examples_of(pairs: Any, config: TrainConfig) -> Examples:
    """Open what a training takes: pairs, or with `verdicts` the images of a pool.

    Args:
        pairs: As `open_pairs` takes them, or the pool's folder.
        config: Of the training.

    Raises:
        TastemakerError: Verdicts are not those of a folder, or the pool has no such scores.
    """
    if config.verdicts is None:
        return open_pairs(pairs)
    if not isinstance(pairs, str | Path):
        raise TastemakerError("train.verdicts are on images of a pool; give its folder.")
    pool = Pool(Path(pairs))
    expect_columns([pool], config)
    return Verdicts(pool, config)
