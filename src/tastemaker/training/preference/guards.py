"""Safeguard against divergence: limits the rejected gradient so that the chosen error falls."""

from __future__ import annotations

import torch


def safe_share(
    chosen_residual: torch.Tensor, rejected_residual: torch.Tensor, slack: float
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
        slack: In [0, 1): how much of the chosen branch's own fall must be left.

    Returns:
        Shares in [0, 1], shape [pairs], without graph.

    References:
        Diffusion-SDPO, arXiv 2511.03317; this is its condition in output space, derived by us.
    """
    chosen = chosen_residual.detach().flatten(1)
    rejected = rejected_residual.detach().flatten(1)
    aligned = (chosen * rejected).sum(1)
    limit = (
        (1 - slack) * chosen.square().sum(1) / aligned.clamp(min=torch.finfo(aligned.dtype).tiny)
    )
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
