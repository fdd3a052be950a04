"""Losses: pure functions with one value per pair, nothing reduced.

A loss names its inputs by its parameters: `errors` (all four `DenoisingErrors`), `margin` (short
for `errors.margin`), `chosen_error` (the policy's on the chosen image, without a credit scheme's
scale), `score_gap` (of the pair's scores), `plain_errors` (`errors` without a credit scheme),
`chosen_shift` (mean squared difference of policy's and reference's prediction on the chosen image),
`mean_gain` (mean of `ref - pol` over all images of the step before). Keyword-only parameters are
its options.
"""

from tastemaker.losses.images import dspo, kto, mapo, sft
from tastemaker.losses.margins import (
    DenoisingErrors,
    dpo,
    from_diffusers_beta,
    hinge,
    ipo,
    penalised,
    robust,
)
from tastemaker.losses.variants import d3po, dmpo, dpo_positive, gap_scaled, linear, smpo

__all__ = [
    "DenoisingErrors",
    "d3po",
    "dmpo",
    "dpo",
    "dpo_positive",
    "dspo",
    "from_diffusers_beta",
    "gap_scaled",
    "hinge",
    "ipo",
    "kto",
    "linear",
    "mapo",
    "penalised",
    "robust",
    "sft",
    "smpo",
]
