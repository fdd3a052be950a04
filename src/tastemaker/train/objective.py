"""One batch to its loss: reads like the paper."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from tastemaker.backbones import Backbone
from tastemaker.train.data import NoisyBatch
from tastemaker.train.reference import Reference, denoising_errors


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


def errors_of(
    backbone: Backbone, policy: torch.nn.Module, reference: Reference, batch: NoisyBatch
) -> DenoisingErrors:
    """Run reference and policy on a batch, chosen and rejected in one forward pass each.

    The reference runs first and without graph, so that its activations are gone before the
    policy's are kept.

    Args:
        backbone: The model's family.
        policy: The network that trains, as `accelerate` wrapped it.
        reference: Where reference errors come from.
        batch: Chosen first, then rejected.

    Returns:
        The four errors of every pair; only the policy's carry a graph.
    """
    reference_chosen, reference_rejected = reference.errors(batch).chunk(2)
    policy_chosen, policy_rejected = denoising_errors(backbone, policy, batch).chunk(2)
    return DenoisingErrors(policy_chosen, policy_rejected, reference_chosen, reference_rejected)


def step_metrics(
    errors: DenoisingErrors, losses: torch.Tensor, beta: float
) -> dict[str, torch.Tensor]:
    """Summarise a batch in TRL's keys, and the drift of both branches.

    `reward = 0.5 * beta * (ref - pol)` is the implicit reward. The margin can grow while both
    errors grow, the known divergence of DPO on diffusion: `errors/chosen` above 0 shows it.

    Args:
        errors: The batch's errors.
        losses: Losses, shape [pairs].
        beta: The loss's beta.

    Returns:
        Scalars, detached: means over the batch.

    References:
        Divergence: arXiv 2511.03317.
    """
    chosen = (errors.policy_chosen - errors.reference_chosen).detach()
    rejected = (errors.policy_rejected - errors.reference_rejected).detach()
    margin = errors.margin.detach()
    accuracy = (margin > 0).float() + 0.5 * (margin == 0).float()
    return {
        "loss": losses.detach().mean(),
        "rewards/chosen": (-0.5 * beta * chosen).mean(),
        "rewards/rejected": (-0.5 * beta * rejected).mean(),
        "rewards/accuracies": accuracy.mean(),
        "rewards/margins": (0.5 * beta * margin).mean(),
        "errors/chosen": chosen.mean(),
        "errors/rejected": rejected.mean(),
    }
