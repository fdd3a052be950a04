"""Rule `angle`: pairs by the direction from rejected to chosen on the plane of two scores.

DreamBoothDPO steers by that direction. The axes are the differences `dIS` and `dTS`, chosen minus
rejected, of image similarity (fidelity to the subject) and text similarity (to the prompt).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from itertools import permutations
from typing import Annotated, NamedTuple

from pydantic import AfterValidator, Field, ValidationInfo
from pydantic_core import PydanticCustomError

from tastemaker.core.registry import RULES
from tastemaker.pairing.picks import Dropped, Pick, widest
from tastemaker.storage.groups import Group, ScorerName, ZScored


class Difference(NamedTuple):
    """An ordered pair of one group's candidates, as a vector on the plane.

    Attributes:
        chosen: Index of the chosen candidate in its group.
        rejected: Index of the rejected one.
        d_is: Fidelity of the chosen minus that of the rejected.
        d_ts: The same of the prompt.
    """

    chosen: int
    rejected: int
    d_is: float
    d_ts: float

    @property
    def angle(self) -> float:
        """`atan2(dTS, dIS)` in degrees, -180 to 180; 0 is pure fidelity, 90 pure prompt."""
        return math.degrees(math.atan2(self.d_ts, self.d_is))

    @property
    def length(self) -> float:
        """`sqrt(dIS^2 + dTS^2)`, in the scores' units."""
        return math.hypot(self.d_is, self.d_ts)


def differences(
    group: Group, fidelity: str, prompt: str, *, zscored: bool = False
) -> Iterator[Difference]:
    """Yield every ordered pair of a group's candidates as a vector on the plane.

    Args:
        group: One prompt's candidates.
        fidelity: Scorer of the first axis.
        prompt: Scorer of the second axis.
        zscored: Divide each scorer's scores by their standard deviation over the pool.

    Yields:
        `n * (n - 1)` differences of `n` candidates, each with its reverse.

    Raises:
        TastemakerError: The pool was not scored by one of them.
    """
    image = group.scored_by(fidelity, zscored=zscored)
    text = group.scored_by(prompt, zscored=zscored)
    for c, r in permutations(range(len(image)), 2):
        yield Difference(c, r, image[c] - image[r], text[c] - text[r])


def _second(prompt: str, info: ValidationInfo) -> str:
    if prompt == info.data.get("fidelity"):
        raise PydanticCustomError("plane", "both axes are one scorer; a plane needs two")
    return prompt


def _not_empty(high: float, info: ValidationInfo) -> float:
    low = info.data.get("low", -math.inf)
    if high <= low:
        raise PydanticCustomError(
            "window",
            "the window [{low}, {high}] is empty; low must be less than high",
            {"low": f"{low:g}", "high": f"{high:g}"},
        )
    return high


def _one_order(threshold: float, info: ValidationInfo) -> float:
    # An edge that was refused itself is missing here: one mistake, one message.
    width = info.data.get("high", math.nan) - info.data.get("low", math.nan)
    if threshold < 0 and width >= 180:
        raise PydanticCustomError(
            "threshold",
            "a window of {width} degrees holds pairs and their reverses, of which only a threshold"
            " of 0 or more takes one; choose a window of less than 180 degrees",
            {"width": f"{width:g}"},
        )
    return threshold


@RULES.register("angle")
def angle(
    group: Group,
    *,
    fidelity: ScorerName,
    prompt: Annotated[ScorerName, AfterValidator(_second)],
    low: Annotated[float, Field(ge=-180, le=180, description="Least angle, degrees.")] = 20.0,
    high: Annotated[
        float,
        Field(ge=-180, le=180, description="Greatest angle, degrees.", validate_default=True),
        AfterValidator(_not_empty),
    ] = 70.0,
    threshold: Annotated[
        float,
        Field(allow_inf_nan=False, description="Keep pairs whose dTS exceeds this."),
        AfterValidator(_one_order),
    ] = 0.0,
    max_pairs: Annotated[int | None, Field(ge=1, description="Most per prompt; null: all.")] = None,
    zscored: ZScored = False,
) -> Iterator[Pick | Dropped]:
    """Every pair whose difference points between two angles on the plane of two scores.

    `low <= atan2(dTS, dIS) <= high` in degrees, and `dTS > threshold`, with `dIS` and `dTS` the
    chosen's image and text similarity minus the rejected's. At 0 degrees the chosen is more
    faithful to the subject and no closer to the prompt, at 90 the other way round: a window nearer
    0 steers towards fidelity, one nearer 90 towards the prompt. Below 0 it needs a
    negative threshold.

    Raw cosines to photographs spread more widely than those to texts, so that angles crowd near 0
    and 180 degrees; z-scores give both axes the same weight. Dropped pairs are counted as ordered
    pairs, `n * (n - 1)` of `n` candidates.

    Args:
        group: One prompt's candidates.
        fidelity: Column of the pool's scores with the image similarity.
        prompt: Column with the text similarity.
        low: Least angle, inclusive, from -180.
        high: Greatest angle, inclusive, more than `low` and at most 180.
        threshold: Least `dTS`, exclusive, in the prompt scorer's units.
        max_pairs: Most pairs per prompt; the widest are kept.
        zscored: Divide both scores, and so threshold and margin, by their deviations in the pool.

    Yields:
        Picks in order of falling margin, `sqrt(dIS^2 + dTS^2)`.

    References:
        DreamBoothDPO, arXiv 2505.20975; its run script's window is [20, 70], its threshold 0.
    """
    kept: list[Pick] = []
    dropped: Counter[str] = Counter()
    for difference in differences(group, fidelity, prompt, zscored=zscored):
        if not difference.length:
            dropped["ordered pairs of equal scores"] += 1
        elif difference.d_ts <= threshold:
            dropped[f"ordered pairs with dTS <= {threshold:g}"] += 1
        elif not low <= difference.angle <= high:
            dropped[f"ordered pairs outside [{low:g}, {high:g}] degrees"] += 1
        else:
            kept.append(Pick(difference.chosen, difference.rejected, difference.length))
    yield from (Dropped(why, number) for why, number in dropped.items())
    yield from widest(kept, max_pairs)
