"""Pairs as differences on the plane: all possible ones, with those that the rule kept marked.

Every ordered pair of a prompt's candidates is a vector (dIS, dTS), chosen minus rejected.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tastemaker.reporting.figures import Array
from tastemaker.reporting.plane.axes import Plane
from tastemaker.reporting.samples import pair_sets
from tastemaker.storage.pairs import PairSet
from tastemaker.storage.run_dir import RunDir


@dataclass(frozen=True)
class Cloud:
    """The ordered pairs of one set of candidates.

    Args:
        name: The set of pairs.
        d_is: Fidelity of the chosen minus that of the rejected, shape `[pairs]`.
        d_ts: The same of the prompt.
        kept: True for pairs that the rule kept.
    """

    name: str
    d_is: Array
    d_ts: Array
    kept: npt.NDArray[np.bool_]

    @property
    def length(self) -> Array:
        """`sqrt(dIS^2 + dTS^2)`, shape `[pairs]`."""
        return np.hypot(self.d_is, self.d_ts)

    @property
    def angle(self) -> Array:
        """`atan2(dTS, dIS)` in degrees, -180 to 180, shape `[pairs]`; 0 is pure fidelity."""
        return np.degrees(np.arctan2(self.d_ts, self.d_is))

    def weighted(self, share: float) -> Array:
        """`lambda * dTS + (1 - lambda) * dIS`, with `lambda` the share, shape `[pairs]`."""
        return share * self.d_ts + (1 - share) * self.d_is


def clouds(run: RunDir, plane: Plane) -> list[Cloud]:
    """Read every set of pairs of a run, with the scored candidates that it was made from.

    Args:
        run: The run.
        plane: The two scores.

    Returns:
        One cloud per set, in order; empty where its candidates are missing or lack a score.

    Raises:
        TastemakerError: A file is torn.
    """
    return [cloud(pairs, plane) for pairs in pair_sets(run)]


def cloud(pairs: PairSet, plane: Plane) -> Cloud:
    """Read one set of pairs as a cloud; see `clouds`."""
    # Here, since candidates need torch, and a page without a plane does not.
    from tastemaker.pairing.angle import differences
    from tastemaker.storage.groups import Groups

    table = pairs.table()
    taken = set(zip(table["chosen_id"].to_pylist(), table["rejected_id"].to_pylist(), strict=True))
    rows = [
        (each.d_is, each.d_ts, (ids[each.chosen], ids[each.rejected]) in taken)
        for pool in pairs.pools()
        if any(pool.folder.glob("candidates-*.parquet"))
        and {plane.fidelity, plane.prompt} <= set(pool.scorers())
        for group in Groups(pool)
        for ids in [group.candidate_ids]
        for each in differences(group, plane.fidelity, plane.prompt, zscored=plane.zscored)
    ]
    values = np.array(rows, dtype=np.float64).reshape(-1, 3)
    return Cloud(pairs.folder.name, values[:, 0], values[:, 1], values[:, 2].astype(bool))
