"""Statistics matching: keeps the channels' means (colours) of the policy's samples in place.

Preference training on real photographs moves colours long before it moves content. The term
compares moments over the pixels of each latent channel, of an estimate that the policy makes from
the chosen image's noisy latents, with the same moments of the reference's estimate or of the data.
"""

from __future__ import annotations

import torch

from tastemaker.config.preference import StatisticsConfig
from tastemaker.core.noise_schedule import Linear, NoiseSchedule
from tastemaker.training.batches import NoisyBatch
from tastemaker.training.preference.step_arrays import at_timesteps, beside


def estimate_of(config: StatisticsConfig, schedule: NoiseSchedule, device: torch.device) -> Linear:
    """Return what the moments are compared in: one reverse step, or the estimate of x_0."""
    linear = schedule.step_estimate() if config.estimate == "step" else schedule.x0_estimate()
    return Linear(*(beside(each, device) for each in (linear.offset, linear.slope)))


def statistics_term(
    config: StatisticsConfig,
    estimate: Linear,
    noisy_latents: torch.Tensor,
    timesteps: torch.Tensor,
    policy: torch.Tensor,
    target: torch.Tensor,
) -> torch.Tensor:
    """Distance of channel moments between two predictions from the same noisy latents.

    With `estimate="step"`, moments `mean`, squared norm this is HG-DPO's term in closed form,

        L_t = b_t^2 * sum_c mean_hw(policy - target)_c^2,   b_t = slope of one reverse step,

    which needs no denoising step: both steps start from equal latents and add equal noise, so that
    only the predictions differ. `estimate="x0"`, moments `mean, std` and the absolute norm against
    the data is the other published form, `sum_c |mean_c - mean_c'| + |std_c - std_c'|` of the
    one-step estimate of x_0. No guidance in either.

    Args:
        config: Moments and norm; the weight is the caller's.
        estimate: From `estimate_of`.
        noisy_latents: Shape [pairs, channels, h, w].
        timesteps: Shape [pairs].
        policy: The policy's prediction, shape as the latents; carries the graph.
        target: The prediction to match: the reference's, or the training target (the data's).

    Returns:
        Distances, 0 or more, shape [pairs].

    References:
        HG-DPO, arXiv 2405.20216, statistics matching loss; the closed form is ours.
    """
    offset, slope = (
        at_timesteps(factor, timesteps)[:, None, None, None]
        for factor in (estimate.offset, estimate.slope)
    )
    gaps = []
    if "mean" in config.moments:
        # The offset cancels: taken first, the difference loses no digits at large weights.
        gaps.append((slope * (policy - target)).mean((2, 3)))
    if "std" in config.moments:
        theirs = offset * noisy_latents + slope * target
        gaps.append((offset * noisy_latents + slope * policy).std((2, 3)) - theirs.std((2, 3)))
    gap = torch.cat(gaps, dim=1)
    return (gap.square() if config.norm == "squared" else gap.abs()).sum(1)


def matching(
    config: StatisticsConfig,
    estimate: Linear,
    batch: NoisyBatch,
    policy: torch.Tensor,
    reference: torch.Tensor,
) -> torch.Tensor:
    """Weighted distance of the chosen images' channel statistics, shape [pairs].

    Args:
        config: Moments, their target, and the weight.
        estimate: From `estimate_of`.
        batch: Chosen first, then rejected.
        policy: Residuals of the policy, from `residuals_of`: a prediction minus its target.
        reference: Residuals of the reference.

    Returns:
        `weight * statistics_term`, to be added to the loss.
    """
    pairs = len(batch.timesteps) // 2
    target = batch.target[:pairs].float()
    aim = target if config.target == "data" else reference[:pairs] + target
    noisy, timesteps = batch.noisy_latents[:pairs].float(), batch.timesteps[:pairs]
    prediction = policy[:pairs] + target
    return config.weight * statistics_term(config, estimate, noisy, timesteps, prediction, aim)
