"""Variants of DPO on pairs: other penalties, divergences and weights, and losses that see the gap.

With `z = 0.5 * beta * margin` throughout.
"""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import Field

from tastemaker.core.lazy_torch import F, torch
from tastemaker.core.registry import BY_HAND, LOSSES, MEASURED
from tastemaker.losses.margins import Beta, DenoisingErrors, dpo, penalised


@LOSSES.register("dpo_positive", paper="arXiv 2402.13228", evidence=MEASURED)
def dpo_positive(
    errors: DenoisingErrors,
    *,
    beta: Beta = 5000.0,
    penalty: Annotated[
        float, Field(ge=0, description="Factor on the growth of the chosen error; 1 to 50.")
    ] = 10.0,
) -> torch.Tensor:
    """DPO-Positive: DPO whose margin is penalised where the chosen error grows.

    `loss = -logsigmoid(0.5 * beta * (margin - penalty * max(0, pol_c - ref_c)))`.

    The same as `dpo` with `guards.chosen_penalty`, as a loss of its own.

    Args:
        errors: Of the pairs.
        beta: Strength of the pull to the reference.
        penalty: 0 is `dpo`.

    Returns:
        Losses, shape [pairs]; ln 2 at the start.

    Example:
        >>> one = torch.ones(1)
        >>> grown = DenoisingErrors(1.5 * one, 2 * one, one, one)  # margin 0.5, growth 0.5
        >>> round(dpo_positive(grown, beta=2.0, penalty=1.0).item(), 6)
        0.693147

    References:
        Pal et al., Smaug: DPO-Positive, arXiv 2402.13228, equation 3, for language models.
    """
    return dpo(penalised(errors, penalty), beta=beta)


@LOSSES.register("dmpo", paper="arXiv 2507.07510", evidence=MEASURED)
def dmpo(
    margin: torch.Tensor,
    *,
    beta: Beta = 2000.0,
    label_smoothing: Annotated[
        float,
        Field(gt=0, lt=0.5, description="Probability left to the rejected image; 0.001 to 0.1."),
    ] = 0.01,
) -> torch.Tensor:
    """DMPO: the reverse KL divergence from the policy's preference to the label's.

    `loss = KL(p || q) = p log(p / q) + (1 - p) log((1 - p) / (1 - q))`, with `p = sigmoid(z)` and
    `q = 1 - s`. Least at `z = logit(q)`; a pair that the policy has quite wrong teaches little
    (mode-seeking), where DPO's gradient is largest.

    Args:
        margin: Margins, shape [pairs].
        beta: Strength of the pull to the reference.
        label_smoothing: `s`: with 0 the divergence would be infinite.

    Returns:
        Losses, shape [pairs], each >= 0; `-ln 2 - 0.5 * ln(q (1 - q))` at the start.

    Example:
        >>> round(dmpo(torch.zeros(1), label_smoothing=0.2).item(), 6)  # 0.5 ln(1 / 0.64)
        0.223144

    References:
        Li et al., Divergence Minimization Preference Optimization, arXiv 2507.07510. The discrete
        form is our reading of the code published with arXiv 2511.03317.
    """
    z = 0.5 * beta * margin
    log_p, log_not_p = F.logsigmoid(z), F.logsigmoid(-z)
    for_chosen = log_p - math.log(1 - label_smoothing)
    for_rejected = log_not_p - math.log(label_smoothing)
    return log_p.exp() * for_chosen + log_not_p.exp() * for_rejected


@LOSSES.register("linear", paper="arXiv 2605.21123", evidence=MEASURED)
def linear(
    margin: torch.Tensor,
    *,
    beta: Annotated[
        float, Field(gt=0, description="Strength of the pull to the reference; 50 to 5000.")
    ] = 100.0,
    least: Annotated[
        float, Field(ge=0, lt=0.5, description="Least weight of a pair; 0.001 to 0.1.")
    ] = 1e-3,
) -> torch.Tensor:
    """Linear-DPO: a pair's weight falls along a line, where DPO's falls along a sigmoid.

    `loss = -w * z`, with the weight `w = clip(0.5 - 0.4 * z, least, 1 - least)` without gradient.
    The factor `0.5 * beta` in z keeps the gradient on the scale of the other losses; the published
    form is this divided by it. A learnt pair keeps the weight `least`, so that errors may drift:
    the authors train it with `reference=ema`.

    Args:
        margin: Margins, shape [pairs].
        beta: The weight is `least` from `z = 1.25` on. The authors take 100 for SD1.5.
        least: Least weight.

    Returns:
        Losses, shape [pairs]; 0 at the start. Their value says less than their gradient.

    Example:
        >>> round(linear(torch.tensor([0.5]), beta=2.0).item(), 6)  # z = 0.5, w = 0.3
        -0.15

    References:
        Li et al., Linear-DPO, arXiv 2605.21123. The slope is that of the published code.
    """
    z = 0.5 * beta * margin
    return -(0.5 - 0.4 * z.detach()).clamp(least, 1 - least) * z


@LOSSES.register("gap_scaled", evidence=MEASURED)
def gap_scaled(
    margin: torch.Tensor,
    score_gap: torch.Tensor,
    *,
    beta: Beta = 5000.0,
    unit: Annotated[
        float, Field(gt=0, description="Score gap at which beta counts once; the median gap.")
    ] = 1.0,
    power: Annotated[
        float, Field(ge=0, description="0: DPO; 1: in proportion to the gap; 0.5 to 1.")
    ] = 1.0,
    most: Annotated[float, Field(gt=0, description="Factor on beta, at most; 2 to 10.")] = 4.0,
) -> torch.Tensor:
    """DPO whose beta grows with the pair's score gap: wide gaps ask for wide margins.

    `loss = -logsigmoid(f * z)`, with `f = min((score_gap / unit)^power, most)`.

    Args:
        margin: Margins, shape [pairs].
        score_gap: How much better the chosen image scores, shape [pairs], in the score's units.
        beta: At a gap of `unit`.
        unit: In the score's units.
        power: Of the gap.
        most: Caps the pull of a few pairs with a huge gap.

    Returns:
        Losses, shape [pairs]; ln 2 at the start.

    Example:
        >>> one = torch.ones(1)
        >>> bool(gap_scaled(one, 2 * one, beta=0.5) == dpo(one, beta=1.0))
        True

    References:
        Ours. beta-DPO, arXiv 2407.08639, scales beta by a batch's implicit rewards instead.
    """
    factor = (score_gap.clamp(min=0) / unit).pow(power).clamp(max=most)
    return dpo(factor * margin, beta=beta)


@LOSSES.register("smpo", paper="arXiv 2506.02698", evidence=MEASURED)
def smpo(
    margin: torch.Tensor,
    score_gap: torch.Tensor,
    *,
    beta: Beta = 2000.0,
    temperature: Annotated[
        float,
        Field(gt=0, description="Score gap of one logit; 1 for PickScore in its own units."),
    ] = 1.0,
    sensitivity: Annotated[
        float, Field(gt=0, description="Factor on beta where the label is certain; 1 to 10.")
    ] = 10.0,
) -> torch.Tensor:
    """SmPO: labels smoothed by a reward model; a pair that it finds equal teaches nothing.

    `loss = -logsigmoid(sensitivity * (2 p - 1) * z)`, with the reward model's preference
    `p = sigmoid(score_gap / temperature)`. The paper takes it with inverted noise.

    Args:
        margin: Margins, shape [pairs].
        score_gap: Of the reward model's scores, shape [pairs]; where it is negative the label is
            turned round.
        beta: Strength of the pull to the reference.
        temperature: In the score's units.
        sensitivity: The paper's gamma.

    Returns:
        Losses, shape [pairs]; ln 2 at the start.

    Example:
        >>> even = smpo(torch.ones(1), torch.zeros(1))
        >>> round(even.item(), 6)
        0.693147

    References:
        Lu et al., Smoothed Preference Optimization via ReNoise Inversion, arXiv 2506.02698,
        equation 9 with `alpha = gamma * p`, as in the published code.
    """
    certainty = torch.tanh(0.5 * score_gap / temperature)  # 2 p - 1
    return dpo(sensitivity * certainty * margin, beta=beta)


@LOSSES.register("d3po", paper="arXiv 2311.13231", evidence=BY_HAND)
def d3po(
    errors: DenoisingErrors,
    *,
    beta: Annotated[float, Field(gt=0, description="Strength of the pull; 0.1 to 10.")] = 0.1,
    clip: Annotated[
        float, Field(gt=0, lt=1, description="Ratios are clipped to 1 +- this; 0.1.")
    ] = 0.1,
) -> torch.Tensor:
    """D3PO: the sampling step of the chosen image was the better decision.

    `loss = -logsigmoid(beta * (log r_c - log r_r))`, with the ratio of policy and reference
    `r = clamp(exp(ref - pol), 1 - clip, 1 + clip)` of each image. Beyond the clip an image has no
    gradient. For `train.noise=trajectory`, whose errors are negative log-densities.

    Args:
        errors: Negative log-densities of the sampled steps, averaged over a latent's elements.
        beta: Of the paper's code.
        clip: The same.

    Returns:
        Losses, shape [pairs]; ln 2 at `policy == reference`.

    References:
        Yang et al. (D3PO), arXiv 2311.13231.
    """
    low, high = math.log(1 - clip), math.log(1 + clip)
    chosen, rejected = (
        each.clamp(low, high) for each in (errors.chosen_gain, errors.rejected_gain)
    )
    return -F.logsigmoid(beta * (chosen - rejected))
