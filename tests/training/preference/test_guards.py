"""Guards: the safe share of the rejected gradient, the penalty on the chosen error, the watch."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tastemaker.losses import DenoisingErrors, penalised
from tastemaker.training.preference.credit import Credit
from tastemaker.training.preference.diagnostics import DivergenceWatch
from tastemaker.training.preference.guards import safe_share, scale_gradient
from tastemaker.training.preference.objective import credited


@given(st.integers(0, 10**6), st.floats(0, 0.9), st.floats(-1, 3))
def test_chosen_error_does_not_rise_to_first_order(seed: int, slack: float, mix: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    chosen, other = torch.randn(2, 5, 4, 3, 3, generator=generator, dtype=torch.float64)
    rejected = mix * chosen + other
    share = safe_share(chosen, rejected, slack)
    assert ((share >= 0) & (share <= 1)).all()
    power = chosen.square().flatten(1).sum(1)
    change = -power + share * (chosen * rejected).flatten(1).sum(1)
    assert (change <= -slack * power + 1e-9).all()


def test_branches_that_do_not_meet_are_left_whole() -> None:
    chosen, rejected = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 5.0]])
    assert safe_share(chosen, rejected, 0.5).item() == 1
    assert safe_share(chosen, -chosen, 0.5).item() == 1
    assert safe_share(chosen, 4 * chosen, 0.0).item() == 0.25


def test_published_safeguard_has_one_share_per_batch() -> None:
    # Per pair 1 / 4 and all of it; together (1 + 1) / (4 + 0).
    chosen = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    rejected = torch.tensor([[4.0, 0.0], [0.0, 1.0]])
    assert safe_share(chosen, rejected, 0.0).tolist() == [0.25, 1]
    assert safe_share(chosen, rejected, 0.0, "batch").tolist() == [0.5, 0.5]
    assert safe_share(chosen, rejected, 0.5, "batch").tolist() == [0.25, 0.25]
    assert safe_share(chosen, -rejected, 0.5, "batch").tolist() == [1, 1]


def test_scaled_gradient_keeps_the_value() -> None:
    x = torch.tensor([3.0], requires_grad=True)
    y = scale_gradient(x * x, torch.tensor([0.5]))
    y.backward()
    assert y.item() == 9
    assert x.grad.item() == 3


def test_penalty_by_hand() -> None:
    # Chosen error grew by 0.1, rejected by 0.5: margin 0.4, penalised by 2 * 0.1.
    errors = DenoisingErrors(*(torch.tensor([value]) for value in (0.6, 1.5, 0.5, 1.0)))
    assert penalised(errors, 0.0).item() == pytest.approx(0.4)
    assert penalised(errors, 2.0).item() == pytest.approx(0.2)
    fell = DenoisingErrors(*(torch.tensor([value]) for value in (0.4, 1.5, 0.5, 1.0)))
    assert penalised(fell, 2.0).item() == pytest.approx(fell.margin.item())


def test_penalty_under_credit_is_in_the_units_of_the_margin() -> None:
    """Chosen error grew by 0.1: with scale 10 and corrections 3 and 2 its log-ratio fell by 2."""

    class Fixed(Credit):
        def __init__(self) -> None:
            pass

        def scale(self, timesteps: torch.Tensor) -> torch.Tensor:
            return torch.full((1,), 10.0)

        def correction(self, timesteps: torch.Tensor) -> torch.Tensor:
            return torch.tensor([[3.0], [0.0], [2.0], [0.0]])

    errors = DenoisingErrors(*(torch.tensor([value]) for value in (0.6, 1.5, 0.5, 1.0)))
    seen = credited(errors, Fixed(), torch.tensor([0]))
    assert penalised(seen, 0.0).item() == pytest.approx(-2.0 + 5.0)
    assert penalised(seen, 4.0).item() == pytest.approx(-2.0 + 5.0 - 4 * 2.0)


def test_watch_warns_once_when_both_grow() -> None:
    watch = DivergenceWatch(window=5)
    said = [watch.seen(margin=step, chosen=0.01 * step) for step in range(30)]
    warnings = [text for text in said if text]
    assert len(warnings) == 1
    assert "chosen_penalty" in warnings[0]


@pytest.mark.parametrize(("margin", "chosen"), [(1, -0.01), (-1, 0.01), (0, 0)])
def test_watch_is_silent_in_healthy_runs(margin: float, chosen: float) -> None:
    watch = DivergenceWatch(window=5)
    assert not any(watch.seen(margin * step, chosen * step) for step in range(30))
