"""Seeds of the noise that the images of pairs were drawn from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from tastemaker.core.errors import TastemakerError
from tastemaker.storage.candidates import Rows, has_trajectories
from tastemaker.storage.pairs import PairSet

REMEDY = "set train.noise=drawn."


def starting_seeds(pairs: str | Path | PairSet | Sequence[Mapping[str, Any]]) -> torch.Tensor:
    """Read the seeds of the noise that the images of pairs were drawn from.

    Args:
        pairs: A folder of pairs.

    Returns:
        Seeds of chosen and rejected images, int64, [pairs, 2].

    Raises:
        TastemakerError: The pairs are rows in memory, or an image was not drawn from noise.
    """
    if not isinstance(pairs, str | Path | PairSet):
        raise TastemakerError(
            f"train.noise=kept needs pairs of a pool, which keeps seeds; {REMEDY}"
        )
    pairs = pairs if isinstance(pairs, PairSet) else PairSet(Path(pairs))
    for pool in filter(has_trajectories, pairs.pools()):
        raise TastemakerError(
            f"train.noise=kept: {pool.folder} has trajectories, of which seeds are those of the"
            " steps; set train.noise=trajectory."
        )
    pools = [Rows(pool, ("seed", "source")) for pool in pairs.pools()]
    ids = ((row["chosen_id"], row["rejected_id"]) for row in pairs.rows())
    return torch.tensor([[_seed(each, pools) for each in pair] for pair in ids])


def _seed(candidate_id: str, pools: Sequence[Rows]) -> int:
    row = next((found for pool in pools if (found := pool.get(candidate_id))), None)
    if row is None or row["source"] != "generated":
        raise TastemakerError(
            f"train.noise=kept: {candidate_id} was not drawn from noise of a seed; {REMEDY}"
        )
    return int(row["seed"])
