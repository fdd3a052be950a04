"""Losses on the images of a pair one by one: regressions, and verdicts that need no partner."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from tastemaker.core.lazy_torch import F, torch
from tastemaker.core.registry import LOSSES, MEASURED
from tastemaker.losses.margins import Beta, DenoisingErrors

Weight = Annotated[float, Field(ge=0, description="Factor on the images of this label; 0 to 2.")]


@LOSSES.register("sft", evidence=MEASURED)
def sft(chosen_error: torch.Tensor) -> torch.Tensor:
    """Supervised fine-tuning on the chosen image: its denoising error, the rejected one unused.

    As a baseline, or with a small weight beside a pairwise loss as an anchor.

    Args:
        chosen_error: The policy's errors on the chosen images, shape [pairs].

    Returns:
        The same values.
    """
    return chosen_error


@LOSSES.register("mapo", paper="arXiv 2406.06424", evidence=MEASURED)
def mapo(
    errors: DenoisingErrors,
    chosen_error: torch.Tensor,
    *,
    beta: Annotated[
        float, Field(gt=0, description="Weight of the preference beside the regression; 0.01 to 1.")
    ] = 0.1,
    snr: Annotated[
        float, Field(gt=0, description="Constant in place of the signal-to-noise ratio; 0.1 to 1.")
    ] = 0.5,
    length: Annotated[
        int, Field(ge=1, description="Denoising steps that one step stands for: the paper's T.")
    ] = 1000,
) -> torch.Tensor:
    """MaPO: regression on the chosen image and a margin of likelihoods, without a reference.

    `loss = pol_c - beta * logsigmoid(T * (f(pol_c) - f(pol_r)))`, with the likelihood
    `f(e) = snr e / (exp(snr e) - 1)`, 1 at `e = 0`. The reference still runs, for the metrics.

    Args:
        errors: Of the pairs; the policy's count.
        chosen_error: The policy's on the chosen images without a credit scheme, shape [pairs].
        beta: Weight of the preference.
        snr: The paper's constant.
        length: T.

    Returns:
        Losses, shape [pairs]; `pol_c + beta * ln 2` where both errors are equal.

    Example:
        >>> one = torch.ones(1)
        >>> round(mapo(DenoisingErrors(one, one, one, one), one).item(), 6)
        1.069315

    References:
        Hong et al., Margin-aware Preference Optimization, arXiv 2406.06424; constants of the
        published code.
    """
    likelihood_c, likelihood_r = (
        # x / (exp(x) - 1), written so that neither it nor its gradient overflows.
        x * torch.exp(-x) / -torch.expm1(-x)
        for x in (
            (snr * error).clamp(min=1e-6)
            for error in (errors.policy_chosen, errors.policy_rejected)
        )
    )
    return chosen_error - beta * F.logsigmoid(length * (likelihood_c - likelihood_r))


@LOSSES.register("kto", paper="arXiv 2404.04465", evidence=MEASURED)
def kto(
    errors: DenoisingErrors,
    mean_gain: torch.Tensor,
    *,
    beta: Beta = 5000.0,
    desirable: Weight = 1.0,
    undesirable: Weight = 1.0,
) -> torch.Tensor:
    """Diffusion-KTO: each image has a verdict of its own, and no partner.

    `loss = (w_d * (1 - sigmoid(z_c)) + w_u * (1 - sigmoid(-z_r))) / 2`, the mean over a desirable
    image (chosen) and an undesirable one (rejected), with `z = 0.5 * beta * (ref - pol - Q)`. The
    reference point `Q = max(0, mean_gain)` has no gradient: an image counts as improved only
    beyond what all images improved by.

    Args:
        errors: Of the pairs.
        mean_gain: Mean of `ref - pol` over the images of the step before, shape [pairs]. The paper
            takes the batch's own; ours is independent of how a step is cut into batches.
        beta: With the factor 0.5, which the published code leaves out.
        desirable: `w_d`.
        undesirable: `w_u`.

    Returns:
        Losses, shape [pairs], in [0, (w_d + w_u) / 2]; half of that at the start.

    Example:
        >>> one = torch.ones(1)
        >>> kto(DenoisingErrors(one, one, one, one), 0 * one).item()
        0.5

    References:
        Li et al., Aligning Diffusion Models by Optimizing Human Utility, arXiv 2404.04465,
        equation 8 with the sigmoid utility.
    """
    point = mean_gain.clamp(min=0)
    z_c, z_r = (0.5 * beta * (gain - point) for gain in (errors.chosen_gain, errors.rejected_gain))
    return 0.5 * (desirable * torch.sigmoid(-z_c) + undesirable * torch.sigmoid(z_r))


@LOSSES.register("dspo", paper="ICLR 2025", evidence=MEASURED)
def dspo(
    margin: torch.Tensor,
    plain_errors: DenoisingErrors,
    chosen_shift: torch.Tensor,
    *,
    beta: Annotated[
        float, Field(gt=0, le=1, description="Strength of the preference; 0.0001 to 1.")
    ] = 1e-3,
) -> torch.Tensor:
    """DSPO: score matching to the distribution of preferred images.

    `loss = mean((r_pol - k * (r_pol - r_ref))^2)` on the chosen image, with the residuals `r`
    (prediction minus target) and `k = beta * sigmoid(-z)`. Expanded, it is
    `(1 - k) * pol_c + k * ref_c - k * (1 - k) * shift_c`: regression, less a push away from the
    reference. With the default beta it is close to `sft`.

    Args:
        margin: Margins, shape [pairs].
        plain_errors: Errors without a credit scheme.
        chosen_shift: `mean((r_pol - r_ref)^2)` on the chosen images, shape [pairs]; it needs the
            reference's whole prediction, and so a live reference.
        beta: 0.001 in the published code.

    Returns:
        Losses, shape [pairs]; the chosen error at the start.

    Example:
        >>> one, nothing = torch.ones(1), torch.zeros(1)
        >>> dspo(nothing, DenoisingErrors(one, one, one, one), nothing).item()
        1.0

    References:
        Zhu et al., DSPO: Direct Score Preference Optimization, ICLR 2025. The form is our reading
        of the code published with arXiv 2511.03317 (SD1.5).
    """
    k = beta * torch.sigmoid(-0.5 * beta * margin)
    matched = (1 - k) * plain_errors.policy_chosen + k * plain_errors.reference_chosen
    return matched - k * (1 - k) * chosen_shift
