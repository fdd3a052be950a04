"""Safeguard against divergence: limits the rejected gradient so that the chosen error falls."""

from __future__ import annotations

from typing import Literal

import torch


def safe_share(
    chosen_residual: torch.Tensor,
    rejected_residual: torch.Tensor,
    slack: float,
    over: Literal["pair", "batch"] = "pair",
) -> torch.Tensor:
    """Largest share of the rejected branch's gradient that lets the chosen error not rise.

    Seen at the network's outputs, a step moves the prediction by `-g_c + share * g_r`, with `g` the
    residuals. To first order the chosen error changes by `-|g_c|^2 + share * <g_c, g_r>`, which is
    at most `-slack * |g_c|^2` for

        share = (1 - slack) |g_c|^2 / <g_c, g_r>   where <g_c, g_r> > 0, and at most 1.

    The residuals of a pair share their noise, so that the two gradients are often aligned. A credit
    scheme multiplies both by one factor, that of the pair's timestep: it cancels.

    Args:
        chosen_residual: Prediction minus target of the chosen images, shape [pairs, ...].
        rejected_residual: The same of the rejected images.
        slack: In [0, 1): how much of the chosen branch's own fall must be left; the paper's mu.
        over: Of each pair by itself; or one share for all, with products summed over the batch as
            published, which depends on how a step is cut into batches.

    Returns:
        Shares in [0, 1], shape [pairs], without graph.

    References:
        Diffusion-SDPO, arXiv 2511.03317, equations 15 to 17 (`over="batch"`); the same condition
        per pair is ours.
    """
    chosen = chosen_residual.detach().flatten(1)
    rejected = rejected_residual.detach().flatten(1)
    power, aligned = chosen.square().sum(1), (chosen * rejected).sum(1)
    if over == "batch":
        power, aligned = (each.sum().expand_as(each) for each in (power, aligned))
    limit = (1 - slack) * power / aligned.clamp(min=torch.finfo(aligned.dtype).tiny)
    return torch.where(aligned > 0, limit.clamp(max=1.0), torch.ones_like(limit))


def scale_gradient(value: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
    """Return `value` unchanged, with its gradient multiplied by `share`.

    Example:
        >>> x = torch.tensor([2.0], requires_grad=True)
        >>> y = scale_gradient(x, torch.tensor([0.25]))
        >>> y.backward()
        >>> y.item(), x.grad.item()
        (2.0, 0.25)
    """
    return share * value + ((1 - share) * value).detach()
