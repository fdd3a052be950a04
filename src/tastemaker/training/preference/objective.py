"""One batch to its loss: reads like the paper."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from tastemaker.backbones import Backbone
from tastemaker.config.training import StatisticsConfig
from tastemaker.core.noise_schedule import NoiseSchedule
from tastemaker.training.preference.credit import Credit
from tastemaker.training.preference.data import NoisyBatch
from tastemaker.training.preference.guards import safe_share, scale_gradient
from tastemaker.training.preference.reference import Reference, mean_square, residual
from tastemaker.training.preference.statistics import statistics_term


@dataclass(frozen=True)
class Residuals:
    """Predictions minus target of one batch, each [2 * pairs, channels, h, w], chosen first."""

    policy: torch.Tensor
    reference: torch.Tensor


@dataclass(frozen=True)
class DenoisingErrors:
    """Mean squared errors of one batch, each of shape [pairs]."""

    policy_chosen: torch.Tensor
    policy_rejected: torch.Tensor
    reference_chosen: torch.Tensor
    reference_rejected: torch.Tensor

    @property
    def margin(self) -> torch.Tensor:
        """`(ref_c - pol_c) - (ref_r - pol_r)`; positive is the right side."""
        chosen_gain = self.reference_chosen - self.policy_chosen
        rejected_gain = self.reference_rejected - self.policy_rejected
        return chosen_gain - rejected_gain

    def stack(self) -> torch.Tensor:
        """The four errors in the order of `step_arrays.BRANCHES`, shape [4, pairs]."""
        return torch.stack(
            [
                self.policy_chosen,
                self.policy_rejected,
                self.reference_chosen,
                self.reference_rejected,
            ]
        )


def residuals_of(
    backbone: Backbone,
    policy: torch.nn.Module,
    reference: Reference,
    batch: NoisyBatch,
    text_encoders: Sequence[torch.nn.Module] = (),
) -> Residuals:
    """Run reference and policy on a batch, chosen and rejected in one forward pass each.

    The reference runs first and without graph, so that its activations are gone before the
    policy's are kept.

    Args:
        backbone: The model's family.
        policy: The network that trains, as `accelerate` wrapped it.
        reference: Where reference predictions come from.
        batch: Chosen first, then rejected.
        text_encoders: The policy's, as `accelerate` wrapped them, where they train.

    Returns:
        What both predicted, less the target.
    """
    theirs = reference.residual(batch)
    return Residuals(residual(backbone, policy, batch, text_encoders), theirs)


def errors_of(residuals: Residuals, safeguard: float | None = None) -> DenoisingErrors:
    """Square and average the residuals, a value an image.

    Args:
        residuals: Of policy and reference.
        safeguard: Slack of `guards.safe_share` on the rejected gradient; None leaves it whole.

    Returns:
        The four errors of every pair; only the policy's carry a graph.
    """
    reference_chosen, reference_rejected = mean_square(residuals.reference).chunk(2)
    chosen, rejected = residuals.policy.chunk(2)
    policy_chosen, policy_rejected = mean_square(chosen), mean_square(rejected)
    if safeguard is not None:
        policy_rejected = scale_gradient(policy_rejected, safe_share(chosen, rejected, safeguard))
    return DenoisingErrors(policy_chosen, policy_rejected, reference_chosen, reference_rejected)


def matching(
    config: StatisticsConfig, schedule: NoiseSchedule, batch: NoisyBatch, residuals: Residuals
) -> torch.Tensor:
    """Weighted distance of the chosen images' channel statistics, shape [pairs].

    Args:
        config: What is matched with what, and how much it counts.
        schedule: The backbone's schedule.
        batch: Chosen first, then rejected.
        residuals: Of policy and reference; a prediction is residual plus target.

    Returns:
        `weight * statistics_term`, to be added to the loss.
    """
    pairs = len(batch.timesteps) // 2
    target = batch.target[:pairs].float()
    policy = residuals.policy[:pairs] + target
    theirs = target if config.target == "data" else residuals.reference[:pairs] + target
    noisy, timesteps = batch.noisy_latents[:pairs].float(), batch.timesteps[:pairs]
    return config.weight * statistics_term(config, schedule, noisy, timesteps, policy, theirs)


def credited(errors: DenoisingErrors, credit: Credit, timesteps: torch.Tensor) -> DenoisingErrors:
    """Give each branch's error its credit: `scale_t * error + C_t`.

    Args:
        errors: Errors as the network made them.
        credit: The scheme.
        timesteps: Shape [pairs].

    Returns:
        What the loss sees.
    """
    return DenoisingErrors(
        *(credit.scale(timesteps) * errors.stack() + credit.correction(timesteps))
    )


def penalised(errors: DenoisingErrors, penalty: float) -> torch.Tensor:
    """The margin, less a penalty on a chosen error that has grown: DPO-Positive.

    `margin - penalty * max(0, pol_c - ref_c)`: the chosen image's log-ratio, where it is negative.

    Args:
        errors: What the margin is made of, so that under a credit scheme the penalty is the same
            estimate of a log-ratio, in the same units.
        penalty: 0 for the plain margin; 10 kept a curriculum on real images from collapsing.

    Returns:
        Margins, shape [pairs].

    References:
        Pal et al., Smaug: DPO-Positive, arXiv 2402.13228, equation 3.
    """
    growth = torch.relu(errors.policy_chosen - errors.reference_chosen)
    return errors.margin - penalty * growth


def step_metrics(
    errors: DenoisingErrors, seen: DenoisingErrors, losses: torch.Tensor, beta: float
) -> dict[str, torch.Tensor]:
    """Summarise a batch in TRL's keys, and the drift of both branches.

    `reward = 0.5 * beta * (ref - pol)` is the implicit reward. The margin can grow while both
    errors grow, the known divergence of DPO on diffusion: `errors/chosen` above 0 shows it.

    Args:
        errors: The batch's errors as the network made them: the drift.
        seen: The errors with their credit, as the loss saw them: the rewards.
        losses: Losses, shape [pairs].
        beta: The loss's beta.

    Returns:
        Scalars, detached: means over the batch.

    References:
        Divergence: arXiv 2511.03317.
    """
    chosen = (errors.policy_chosen - errors.reference_chosen).detach()
    rejected = (errors.policy_rejected - errors.reference_rejected).detach()
    margin = seen.margin.detach()
    chosen_reward = 0.5 * beta * (seen.reference_chosen - seen.policy_chosen).detach()
    rejected_reward = 0.5 * beta * (seen.reference_rejected - seen.policy_rejected).detach()
    accuracy = (margin > 0).float() + 0.5 * (margin == 0).float()
    return {
        "loss": losses.detach().mean(),
        "rewards/chosen": chosen_reward.mean(),
        "rewards/rejected": rejected_reward.mean(),
        "rewards/accuracies": accuracy.mean(),
        "rewards/margins": (0.5 * beta * margin).mean(),
        "errors/chosen": chosen.mean(),
        "errors/rejected": rejected.mean(),
    }
