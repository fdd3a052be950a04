"""Pairwise losses: pure functions of the margin, one value a pair, nothing reduced.

`margin = (ref_c - pol_c) - (ref_r - pol_r)`, where `pol` and `ref` are the policy's and the
reference's mean squared denoising errors on the chosen (c) and rejected (r) image. A positive
margin is the right side: the policy has gained more on the chosen image than on the rejected one.
"""

from __future__ import annotations

from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field

from tastemaker.registry import LOSSES

Beta = Annotated[
    float, Field(gt=0, description="Strength of the pull to the reference; 500 to 10000.")
]
Smoothing = Annotated[
    float, Field(ge=0, lt=0.5, description="Share of labels taken to be wrong; 0 to 0.3.")
]


@LOSSES.register("dpo")
def dpo(
    margin: torch.Tensor, *, beta: Beta = 5000.0, label_smoothing: Smoothing = 0.0
) -> torch.Tensor:
    """Diffusion-DPO: the negative log-likelihood that the chosen image wins.

    `loss = -(1 - s) * logsigmoid(z) - s * logsigmoid(-z)`, with `z = 0.5 * beta * margin`.

    At `policy == reference` the margin is 0 and the loss is exactly ln 2. Because errors are means
    over a latent's elements, `beta` does not depend on the resolution.

    Args:
        margin: Margins, shape [pairs], in units of mean squared error.
        beta: With the factor 0.5 of the paper's code. The diffusers research script leaves the 0.5
            out, so its 2500 is 5000 here (`from_diffusers_beta`).
        label_smoothing: `s` of conservative DPO (cDPO); 0 is the paper's loss.

    Returns:
        Losses, shape [pairs], each >= 0 for `label_smoothing=0`.

    Example:
        >>> round(dpo(torch.zeros(1)).item(), 6)
        0.693147

    References:
        Wallace et al., Diffusion Model Alignment Using Direct Preference Optimization,
        arXiv 2311.12908, equation 14. Smoothing: Mitchell, A note on DPO with noisy preferences.
    """
    z = 0.5 * beta * margin
    return -(1 - label_smoothing) * F.logsigmoid(z) - label_smoothing * F.logsigmoid(-z)


def from_diffusers_beta(beta: float) -> float:
    """Convert `--beta_dpo` of the diffusers research script to this package's beta.

    Args:
        beta: The script's value; its loss is `-logsigmoid(beta * margin)`, without the 0.5.

    Returns:
        Twice that.

    Example:
        >>> from_diffusers_beta(2500.0)
        5000.0
    """
    return 2 * beta
