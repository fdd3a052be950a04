"""Alternatives of a training that are not entries of a table, each with a line for `doctor`."""

from __future__ import annotations

from typing import Literal

from tastemaker.core.registry import BY_HAND, MEASURED, UNTESTED

Reference = Literal["adapters_off", "frozen_copy", "frozen_adapter", "synced"]

REFERENCES: dict[Reference, str] = {
    "adapters_off": "the base below the adapters: no second model in memory"
    f" [arXiv 2311.12908; {MEASURED}]",
    "frozen_copy": "a copy of what training starts from, which full training needs"
    f" [arXiv 2311.12908; {UNTESTED}]",
    "frozen_adapter": "a frozen copy of the adapter in `start`, for stages that go on"
    f" [arXiv 2405.20216; {MEASURED}]",
    "synced": "follows the policy: an EMA of it, or the policy every so many steps"
    f" [TR-DPO, arXiv 2404.09656; {MEASURED}]",
}
"""Models whose errors the policy's are compared with."""

Noise = Literal["drawn", "kept", "inverted", "trajectory"]

NOISES: dict[Noise, str] = {
    "drawn": f"drawn anew, one for both images of a pair [arXiv 2311.12908; {MEASURED}]",
    "kept": f"each image's own, that it was sampled from [{UNTESTED}]",
    "inverted": "each image's own, by DDIM inversion with the base: imported images too"
    f" [InPO, arXiv 2503.18454; SmPO, arXiv 2506.02698; {UNTESTED}]",
    "trajectory": "a step of each image's own trajectory, with its log-density"
    f" [arXiv 2311.13231; {BY_HAND}]",
}
"""Noise on the images of a pair."""
