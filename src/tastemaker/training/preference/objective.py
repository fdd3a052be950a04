"""Pairs to the losses of one batch: noisy images, predictions, errors, credit, losses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from tastemaker.backbones import Backbone
from tastemaker.core.errors import TastemakerError
from tastemaker.core.seeding import keyed_generator
from tastemaker.losses import DenoisingErrors
from tastemaker.training.batches import (
    NoisyBatch,
    mean_square,
    moved,
    noisy_batch,
    residual,
)
from tastemaker.training.order import bucketed_indices
from tastemaker.training.preference.credit import Credit
from tastemaker.training.preference.data import TrainingData
from tastemaker.training.preference.guards import safe_share, scale_gradient
from tastemaker.training.preference.reference import Reference
from tastemaker.training.preference.terms import Term


def pair_indices(
    data: TrainingData,
    draws: Sequence[int],
    *,
    seed: int,
    step: int | None = None,
    available: int | None = None,
) -> torch.Tensor:
    """Choose the pairs of some samples of the run: each epoch is a permutation.

    Args:
        data: The pairs.
        draws: Numbers of the samples in the run.
        seed: The run's seed.
        step: Samples per optimizer step, all of one size; None: these.
        available: Choose from so many pairs of the widest gap; None: from all.

    Returns:
        Indices of pairs, shape [draws].
    """
    members = data.members(available)
    sizes = tuple(len(each) for each in members)
    places = bucketed_indices(draws, sizes, step or len(draws), seed)
    return torch.tensor([int(members[bucket][index]) for bucket, index in places])


@dataclass(frozen=True)
class PairBatch(NoisyBatch):
    """Noisy images of pairs, the chosen first.

    Attributes:
        score_gap: Of each pair, shape [pairs].
        reference_errors: The reference's errors, shape [2 * pairs], where they are known.
    """

    score_gap: torch.Tensor = field(kw_only=True)
    reference_errors: torch.Tensor | None = field(default=None, kw_only=True)


def pair_batch(
    data: TrainingData,
    backbone: Backbone,
    pairs: torch.Tensor,
    draws: Sequence[int],
    *,
    seed: int,
    sample_posterior: bool = True,
    proportion_empty_prompts: float = 0.0,
    densities: Sequence[torch.Tensor | None] | None = None,
) -> PairBatch:
    """Add noise to pairs.

    Timestep, noise and posterior sample are keyed by the sample's number alone.

    Args:
        data: Cached latents and embeddings.
        backbone: The model.
        pairs: Indices of pairs whose images have one size, shape [draws].
        draws: Numbers of the samples in the run.
        seed: The run's seed.
        sample_posterior: Sample the VAE's posterior, or take its mean.
        proportion_empty_prompts: Share of pairs with the empty prompt in policy and reference.
        densities: How often each timestep is drawn, one density per bucket of latents.

    Returns:
        The batch on the model's device, the chosen images first.
    """
    images = data.images(pairs)
    # The empty prompt's row is the first.
    rows = data.prompts(pairs) * ~dropped_prompts(draws, proportion_empty_prompts, seed)
    conditioning, tokens = data.text(torch.cat([rows, rows]))
    conditioning |= data.latents.conditioning(images)
    batch = noisy_batch(
        backbone,
        data.latents,
        images,
        [keyed_generator(seed, "draw", draw) for draw in draws],
        conditioning,
        tokens,
        sample_posterior=sample_posterior,
        densities=densities,
    )
    return PairBatch(**vars(batch), score_gap=moved(data.score_gap(pairs), batch.timesteps.device))


def dropped_prompts(draws: Sequence[int], share: float, seed: int) -> torch.Tensor:
    """Choose the samples that train with the empty prompt, which guidance needs in sampling.

    Args:
        draws: Numbers of the samples in the run.
        share: Probability of each, 0 to 1; 0.2 in the reference implementation of Diffusion-DPO.
        seed: The run's seed.

    Returns:
        Booleans, shape [draws].

    References:
        Ho and Salimans, classifier-free diffusion guidance, arXiv 2207.12598.
    """
    generators = [keyed_generator(seed, "prompt dropout", draw) for draw in draws]
    return torch.cat([torch.rand(1, generator=each) for each in generators]) < share


def residuals_of(
    backbone: Backbone,
    policy: torch.nn.Module,
    reference: Reference,
    batch: NoisyBatch,
    text_encoders: Sequence[torch.nn.Module] = (),
) -> tuple[torch.Tensor, torch.Tensor]:
    """Run reference and policy on a batch, chosen and rejected in one forward pass each.

    The reference runs first, so that its activations are gone before the policy's are kept; where
    the batch brings its errors, it does not run.

    Args:
        backbone: The model's family.
        policy: The network that trains, as `accelerate` wrapped it.
        reference: The policy before training.
        batch: Chosen first, then rejected.
        text_encoders: The policy's, as `accelerate` wrapped them, where they train.

    Returns:
        Predictions of policy and reference minus target, each [2 * pairs, channels, h, w]; known
        errors of the reference in place of the second, [2 * pairs].
    """
    known = batch.reference_errors if isinstance(batch, PairBatch) else None
    fixed = reference.residual(batch) if known is None else known
    return residual(backbone, policy, batch, text_encoders), fixed


def errors_of(
    policy: torch.Tensor, reference: torch.Tensor, safeguard: float | None = None
) -> DenoisingErrors:
    """Square and average residuals, one value per image.

    Args:
        policy: Residuals of the policy, from `residuals_of`.
        reference: Residuals of the reference, or its errors.
        safeguard: Slack of `guards.safe_share` on the rejected gradient; None leaves it whole.

    Returns:
        The four errors of every pair; only the policy's carry a graph.
    """
    errors = reference if reference.dim() == 1 else mean_square(reference)
    reference_chosen, reference_rejected = errors.chunk(2)
    chosen, rejected = policy.chunk(2)
    policy_chosen, policy_rejected = mean_square(chosen), mean_square(rejected)
    if safeguard is not None:
        policy_rejected = scale_gradient(policy_rejected, safe_share(chosen, rejected, safeguard))
    return DenoisingErrors(policy_chosen, policy_rejected, reference_chosen, reference_rejected)


def credited(errors: DenoisingErrors, credit: Credit, timesteps: torch.Tensor) -> DenoisingErrors:
    """Give each branch's error its credit: `scale_t * error + C_t`.

    Args:
        errors: Errors as the network made them.
        credit: The scheme.
        timesteps: Shape [pairs].

    Returns:
        The errors that losses see.
    """
    if credit.neutral:
        return errors
    scale, correction = credit.scale(timesteps), credit.correction(timesteps)
    return DenoisingErrors(*(scale * errors.stack() + correction))


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
    growth = torch.relu(errors.policy_chosen - errors.reference_chosen)
    return errors.margin - penalty * growth


def weighted_sum(
    terms: Sequence[Term],
    errors: DenoisingErrors,
    seen: DenoisingErrors,
    score_gap: torch.Tensor,
    penalty: float,
) -> torch.Tensor:
    """Add up the configured losses, each on what its parameters name.

    Errors with their credit are estimates of log-ratios of whole images; a loss of the chosen error
    alone is a regression at this timestep, and sees the error as it is.

    Args:
        terms: From `build_losses`.
        errors: Errors as the network made them.
        seen: The errors with their credit.
        score_gap: Of each pair, shape [pairs].
        penalty: Of `penalised`, on the margin.

    Returns:
        Losses, shape [pairs].

    Raises:
        TastemakerError: A loss returns another shape.
    """
    inputs = {
        "errors": seen,
        "margin": penalised(seen, penalty),
        "chosen_error": errors.policy_chosen,
        "score_gap": score_gap,
    }
    values = []
    for term in terms:
        value = term.loss(*(inputs[name] for name in term.inputs))
        if value.shape != score_gap.shape:
            raise TastemakerError(
                f"loss {term.name!r} returned shape {list(value.shape)} for {len(score_gap)} pairs;"
                " it must return one value per pair, and reduce nothing."
            )
        values.append(term.weight * value)
    return torch.stack(values).sum(0)
