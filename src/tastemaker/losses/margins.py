"""Denoising errors of pairs, and losses on their margin.

With `z = 0.5 * beta * margin` throughout. All are in units of mean squared error, so that `beta` is
independent of the resolution.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from tastemaker.core.lazy_torch import F, torch
from tastemaker.core.registry import LOSSES, MEASURED

Beta = Annotated[
    float, Field(gt=0, description="Strength of the pull to the reference; 500 to 10000.")
]
Smoothing = Annotated[
    float, Field(ge=0, lt=0.5, description="Share of labels taken to be wrong; 0 to 0.3.")
]


@dataclass(frozen=True)
class DenoisingErrors:
    """Mean squared denoising errors of pairs, each of shape [pairs].

    Attributes:
        policy_chosen: Of the network that trains, on the chosen images.
        policy_rejected: On the rejected images.
        reference_chosen: Of the network before training, without graph.
        reference_rejected: On the rejected images.

    Example:
        >>> one = torch.ones(1)
        >>> DenoisingErrors(0.5 * one, 0.75 * one, one, one).margin.item()
        0.25
    """

    policy_chosen: torch.Tensor
    policy_rejected: torch.Tensor
    reference_chosen: torch.Tensor
    reference_rejected: torch.Tensor

    @property
    def chosen_gain(self) -> torch.Tensor:
        """`ref_c - pol_c`: how far the policy's error on the chosen image has fallen."""
        return self.reference_chosen - self.policy_chosen

    @property
    def rejected_gain(self) -> torch.Tensor:
        """`ref_r - pol_r`, the same on the rejected image."""
        return self.reference_rejected - self.policy_rejected

    @property
    def margin(self) -> torch.Tensor:
        """`chosen_gain - rejected_gain`; positive where the policy prefers the chosen image."""
        return self.chosen_gain - self.rejected_gain

    def stack(self) -> torch.Tensor:
        """Return the four errors in the order of the attributes, shape [4, pairs]."""
        return torch.stack(
            [
                self.policy_chosen,
                self.policy_rejected,
                self.reference_chosen,
                self.reference_rejected,
            ]
        )


@LOSSES.register("dpo", paper="arXiv 2311.12908", evidence=MEASURED)
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


@LOSSES.register("ipo", paper="arXiv 2310.12036", evidence=MEASURED)
def ipo(margin: torch.Tensor, *, beta: Beta = 5000.0) -> torch.Tensor:
    """IPO: a squared distance to a target margin, which a margin can also overshoot.

    `loss = (0.5 * margin - 1 / (2 * beta))^2 * beta^2`, that is `(z - 1/2)^2` with
    `z = 0.5 * beta * margin`. The factor `beta^2` keeps the gradient on the scale of the other
    losses; the published form is this divided by it.

    Args:
        margin: Margins, shape [pairs].
        beta: Strength of the pull to the reference: the target margin is `1 / beta`.

    Returns:
        Losses, shape [pairs].

    Example:
        >>> round(ipo(torch.zeros(1)).item(), 6)
        0.25

    References:
        Azar et al., A general theoretical paradigm to understand learning from human preferences,
        arXiv 2310.12036, equation 17.
    """
    return (0.5 * beta * margin - 0.5).square()


@LOSSES.register("hinge", paper="arXiv 2305.10425", evidence=MEASURED)
def hinge(margin: torch.Tensor, *, beta: Beta = 5000.0) -> torch.Tensor:
    """Hinge: nothing more is learned from a pair once its margin is wide enough.

    `loss = max(0, 1 - z)`, with `z = 0.5 * beta * margin`.

    Args:
        margin: Margins, shape [pairs].
        beta: The margin is wide enough at `2 / beta`.

    Returns:
        Losses, shape [pairs].

    Example:
        >>> hinge(torch.tensor([0.0, 1.0])).tolist()
        [1.0, 0.0]

    References:
        Zhao et al., SLiC-HF, arXiv 2305.10425.
    """
    return torch.relu(1 - 0.5 * beta * margin)


@LOSSES.register("robust", paper="arXiv 2403.00409", evidence=MEASURED)
def robust(
    margin: torch.Tensor, *, beta: Beta = 5000.0, label_smoothing: Smoothing = 0.1
) -> torch.Tensor:
    """Robust DPO: unbiased where a known share of the labels is flipped.

    `loss = (-(1 - s) * logsigmoid(z) + s * logsigmoid(-z)) / (1 - 2 s)`, `z = 0.5 * beta * margin`.

    Unlike `dpo` with smoothing it may be negative, and it does not fall for ever on one side.

    Args:
        margin: Margins, shape [pairs].
        beta: Strength of the pull to the reference.
        label_smoothing: `s`, the share of labels that are flipped.

    Returns:
        Losses, shape [pairs].

    Example:
        >>> round(robust(torch.zeros(1)).item(), 6)
        0.693147

    References:
        Chowdhury et al., Provably robust DPO, arXiv 2403.00409.
    """
    z = 0.5 * beta * margin
    weighted = -(1 - label_smoothing) * F.logsigmoid(z) + label_smoothing * F.logsigmoid(-z)
    return weighted / (1 - 2 * label_smoothing)


def penalised(errors: DenoisingErrors, penalty: float) -> torch.Tensor:
    """The margin, less a penalty on a chosen error that has grown: DPO-Positive.

    `margin - penalty * max(0, pol_c - ref_c)`: the chosen image's log-ratio, where it is negative.

    Args:
        errors: With their credit, so that the penalty is the same estimate of a log-ratio as the
            margin, in the same units.
        penalty: 0 for the plain margin; 10 kept a curriculum on real images from collapsing.

    Returns:
        Margins, shape [pairs].

    References:
        Pal et al., Smaug: DPO-Positive, arXiv 2402.13228, equation 3.
    """
    return errors.margin - penalty * torch.relu(-errors.chosen_gain)


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
