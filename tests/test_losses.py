"""Losses against numbers worked out by hand, and laws that every registered loss obeys."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from tastemaker.core.registry import LOSSES
from tastemaker.losses import dpo, from_diffusers_beta


def float64(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_dpo_by_hand() -> None:
    # z = 0.5 * 4 * margin = 1, -1, 0: log(1 + exp(-z)).
    losses = dpo(float64(0.5, -0.5, 0.0), beta=4.0)
    expected = [math.log1p(math.exp(-1)), math.log1p(math.exp(1)), math.log(2)]
    assert losses.tolist() == pytest.approx(expected, rel=1e-14)


def test_dpo_smoothed_by_hand() -> None:
    # z = 1, s = 0.25: 0.75 * log(1 + e^-1) + 0.25 * log(1 + e).
    expected = 0.75 * math.log1p(math.exp(-1)) + 0.25 * math.log1p(math.e)
    assert dpo(float64(0.5), beta=4.0, label_smoothing=0.25).item() == pytest.approx(expected)


def test_dpo_takes_the_mean_after_the_sigmoid() -> None:
    margins = float64(1.0, -1.0)
    assert dpo(margins, beta=4.0).mean() > dpo(margins.mean()[None], beta=4.0).mean()


def test_diffusers_beta_gives_the_research_script_loss() -> None:
    margins = float64(3e-4, -1e-4, 0.0)
    script = -F.logsigmoid(2500 * margins)
    assert torch.allclose(dpo(margins, beta=from_diffusers_beta(2500)), script, rtol=1e-14)


PAIRWISE = [name for name in LOSSES.names() if name != "sft"]


@pytest.mark.parametrize("name", PAIRWISE)
class TestEveryLoss:
    def test_keeps_one_value_a_pair(self, name: str) -> None:
        loss = LOSSES.bind(name, {})
        margins = torch.linspace(-1e-3, 1e-3, 7, dtype=torch.float64)
        losses = loss(margins)
        assert losses.shape == margins.shape
        assert torch.allclose(losses[2:3], loss(margins[2:3]))

    def test_falls_with_the_margin_at_the_start(self, name: str) -> None:
        margin = float64(0.0).requires_grad_()
        LOSSES.bind(name, {})(margin).sum().backward()
        assert margin.grad is not None
        assert margin.grad.item() < 0

    @pytest.mark.parametrize("extreme", [-1e6, -1.0, 1.0, 1e6])
    def test_is_finite_at_extreme_margins(self, name: str, extreme: float) -> None:
        margin = torch.tensor([extreme], requires_grad=True)
        loss = LOSSES.bind(name, {})(margin)
        loss.sum().backward()
        assert torch.isfinite(loss).all()
        assert torch.isfinite(margin.grad).all()


def test_other_losses_by_hand() -> None:
    # z = 0.5 * 4 * margin = 1 and -1.
    margins = float64(0.5, -0.5)
    assert LOSSES.bind("ipo", {"beta": 4.0})(margins).tolist() == [0.25, 2.25]
    assert LOSSES.bind("hinge", {"beta": 4.0})(margins).tolist() == [0.0, 2.0]
    s = 0.25
    up, down = math.log1p(math.exp(-1)), math.log1p(math.e)
    expected = [((1 - s) * up - s * down) / (1 - 2 * s), ((1 - s) * down - s * up) / (1 - 2 * s)]
    robust = LOSSES.bind("robust", {"beta": 4.0, "label_smoothing": s})
    assert robust(margins).tolist() == pytest.approx(expected)


def test_robust_is_unbiased_under_flips() -> None:
    """Averaged over flipped labels it is the plain loss of the true ones."""
    s, margin = 0.2, float64(3e-4)
    robust = LOSSES.bind("robust", {"label_smoothing": s})
    assert (1 - s) * robust(margin) + s * robust(-margin) == pytest.approx(dpo(margin).item())
