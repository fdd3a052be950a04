"""Losses of a batch of pairs: residuals of policy and reference, errors, credit, losses."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch

from tastemaker.backbones import Backbone
from tastemaker.backbones.lora.adapters import ADAPTER, adapted
from tastemaker.config.preference import GuardConfig
from tastemaker.config.training import TrainConfig
from tastemaker.core.errors import TastemakerError
from tastemaker.losses import DenoisingErrors, penalised
from tastemaker.training.batches import NoisyBatch, mean_square, residual
from tastemaker.training.preference.credit import Credit
from tastemaker.training.preference.data import PairBatch
from tastemaker.training.preference.guards import safe_share, scale_gradient
from tastemaker.training.preference.terms import build_losses


class Reference:
    """The policy's own networks with other adapters acting: no second model in memory.

    Args:
        backbone: The model, whose networks carry the LoRA that trains.
        adapter: The adapter that acts: `START`; None: none, the reference is the base.
    """

    def __init__(self, backbone: Backbone, adapter: str | None = None) -> None:
        from peft.tuners.tuners_utils import BaseTunerLayer

        self.backbone = backbone
        self.denoiser: torch.nn.Module = backbone.denoiser
        self.text_encoders: Sequence[torch.nn.Module] = backbone.text_encoders
        self.adapter = adapter
        modules = (module for network in adapted(backbone) for module in network.modules())
        self.layers: list[Any] = [each for each in modules if isinstance(each, BaseTunerLayer)]

    @torch.no_grad()
    def residual(self, batch: NoisyBatch) -> torch.Tensor:
        """Return prediction minus target, shape [2 * pairs, channels, h, w], without graph."""
        # PEFT's own switches walk through all modules of a network, 50 ms of every step on SDXL.
        # Not between a forward and its backward pass: that upsets compiled models.
        before = [(layer._disable_adapters, layer._active_adapter) for layer in self.layers]
        flags = self.adapter is None, self.adapter or ADAPTER
        try:
            for layer in self.layers:
                layer._disable_adapters, layer._active_adapter = flags
            return residual(self.backbone, self.denoiser, batch, self.text_encoders)
        finally:
            for layer, own in zip(self.layers, before, strict=True):
                layer._disable_adapters, layer._active_adapter = own


class FrozenCopy(Reference):
    """A copy of what trains, made before the first step: needed when all weights train.

    Args:
        backbone: The model as training starts.
        text_encoders: Those that train.
    """

    def __init__(self, backbone: Backbone, text_encoders: Sequence[torch.nn.Module] = ()) -> None:
        self.backbone = backbone
        self.denoiser, *self.text_encoders = (
            copy.deepcopy(network).requires_grad_(False).eval()
            for network in (backbone.denoiser, *text_encoders)
        )
        self.adapter, self.layers = None, []

    def release(self) -> None:
        """Free the copy's memory, once its errors are known."""
        for network in (self.denoiser, *self.text_encoders):
            network.to("meta")


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
    policy: torch.Tensor, reference: torch.Tensor, guards: GuardConfig | None = None
) -> DenoisingErrors:
    """Square and average residuals, one value per image.

    Args:
        policy: Residuals of the policy, from `residuals_of`.
        reference: Residuals of the reference, or its errors.
        guards: With the safeguard on the rejected gradient; None leaves it whole.

    Returns:
        The four errors of every pair; only the policy's carry a graph.
    """
    errors = reference if reference.dim() == 1 else mean_square(reference)
    reference_chosen, reference_rejected = errors.chunk(2)
    chosen, rejected = policy.chunk(2)
    policy_chosen, policy_rejected = mean_square(chosen), mean_square(rejected)
    if guards is not None and guards.safeguard is not None:
        share = safe_share(chosen, rejected, guards.safeguard, guards.safeguard_over)
        policy_rejected = scale_gradient(policy_rejected, share)
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


class Losses:
    """The configured losses, and the state that some of them need.

    Args:
        config: Of the training.

    Raises:
        TastemakerError: A loss takes something that a step does not have.
    """

    def __init__(self, config: TrainConfig) -> None:
        self.terms = build_losses(config)
        self.penalty = config.guards.chosen_penalty
        self.needs = {name for term in self.terms for name in term.inputs}
        self.mean_gain = torch.zeros(())

    def weighted_sum(
        self,
        errors: DenoisingErrors,
        seen: DenoisingErrors,
        residuals: tuple[torch.Tensor, torch.Tensor],
        score_gap: torch.Tensor,
    ) -> torch.Tensor:
        """Add up the losses of a batch, each on what its parameters name.

        Errors with their credit are estimates of log-ratios of whole images; a loss of the chosen
        error alone is a regression at this timestep, and sees the error as it is.

        Args:
            errors: Errors as the network made them.
            seen: The errors with their credit.
            residuals: From `residuals_of`.
            score_gap: Of each pair, shape [pairs].

        Returns:
            Losses, shape [pairs].

        Raises:
            TastemakerError: A loss returns another shape.
        """
        inputs = {
            "errors": seen,
            "margin": penalised(seen, self.penalty),
            "chosen_error": errors.policy_chosen,
            "score_gap": score_gap,
            "plain_errors": errors,
            "mean_gain": self.mean_gain.to(score_gap.device).expand_as(score_gap),
        }
        if "chosen_shift" in self.needs:
            policy, reference = (each.chunk(2)[0] for each in residuals)
            inputs["chosen_shift"] = mean_square(policy - reference)
        values = []
        for term in self.terms:
            value = term.loss(*(inputs[name] for name in term.inputs))
            if value.shape != score_gap.shape:
                raise TastemakerError(
                    f"loss {term.name!r} returned shape {list(value.shape)} for"
                    f" {len(score_gap)} pairs; it must return one value per pair, and reduce"
                    " nothing."
                )
            values.append(term.weight * value)
        return torch.stack(values).sum(0)

    def update(self, gains: torch.Tensor) -> None:
        """Take the mean of a step's `ref - pol`, of both images of all pairs of all processes."""
        self.mean_gain = gains.float().mean()

    def state(self) -> dict[str, torch.Tensor]:
        """Return what the next step needs of this one; empty for most losses."""
        return {"mean_gain": self.mean_gain} if "mean_gain" in self.needs else {}

    def load(self, state: dict[str, torch.Tensor]) -> None:
        """Restore `state`."""
        self.mean_gain = state.get("mean_gain", self.mean_gain)
