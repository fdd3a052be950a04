"""Losses against numbers worked out by hand, and laws that every registered loss obeys."""

from __future__ import annotations

import inspect
import math
import re
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from tastemaker.core.registry import LOSSES
from tastemaker.losses import DenoisingErrors, dpo, from_diffusers_beta, linear


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


def pairs(*values: float, rows: int = 1) -> DenoisingErrors:
    """Errors in the order of the attributes, equal in all rows."""
    return DenoisingErrors(*(torch.full((rows,), each, dtype=torch.float64) for each in values))


def computed(
    name: str,
    errors: DenoisingErrors,
    *,
    gap: float = 1.0,
    mean_gain: float = 0.0,
    shift: torch.Tensor | None = None,
    **options: Any,
) -> torch.Tensor:
    """A registered loss on the inputs that it names."""
    like = torch.ones_like(errors.policy_chosen)
    inputs = {
        "errors": errors,
        "margin": errors.margin,
        "chosen_error": errors.policy_chosen,
        "score_gap": gap * like,
        "plain_errors": errors,
        "mean_gain": mean_gain * like,
        "chosen_shift": 0 * like if shift is None else shift,
    }
    parameters = inspect.signature(LOSSES.entry(name)).parameters
    named = [inputs[each] for each in parameters if each in inputs]
    result: torch.Tensor = LOSSES.bind(name, options)(*named)
    return result


LN2 = math.log(2)
START = {
    **dict.fromkeys(("dpo", "robust", "dpo_positive", "gap_scaled", "smpo", "d3po"), LN2),
    "dmpo": -LN2 - 0.5 * math.log(0.99 * 0.01),
    "dspo": 1.0,
    "hinge": 1.0,
    "ipo": 0.25,
    "kto": 0.5,
    "linear": 0.0,
    "mapo": 1 + 0.1 * LN2,
    "sft": 1.0,
}
"""Losses where policy and reference have an error of 1 everywhere."""

IGNORE_REJECTED = {"sft", "dspo"}
"""Losses that see the rejected image not at all, or not at the start."""


@pytest.mark.parametrize("name", LOSSES.names())
class TestEveryLoss:
    def test_starts_at_a_known_value(self, name: str) -> None:
        assert computed(name, pairs(1, 1, 1, 1)).item() == pytest.approx(START[name])

    def test_lowers_the_chosen_error_and_raises_the_rejected(self, name: str) -> None:
        errors = pairs(1, 1, 1, 1)
        branches = [errors.policy_chosen.requires_grad_(), errors.policy_rejected.requires_grad_()]
        computed(name, errors).sum().backward()
        chosen, rejected = (0 if each.grad is None else each.grad.item() for each in branches)
        assert chosen > 0
        assert rejected == 0 if name in IGNORE_REJECTED else rejected < 0

    def test_keeps_one_value_per_pair(self, name: str) -> None:
        """Whatever is in the batch beside it: a step may be cut into micro-batches."""
        values = torch.linspace(0.9, 1.1, 28, dtype=torch.float64)
        errors = DenoisingErrors(*values.view(7, 4).T)
        losses = computed(name, errors)
        assert losses.shape == (7,)
        alone = computed(name, DenoisingErrors(*errors.stack()[:, 2:3]))
        assert torch.allclose(losses[2:3], alone)

    @pytest.mark.parametrize(("chosen", "rejected"), [(1e6, 1.0), (1.0, 1e6), (1e-9, 1e-9)])
    def test_is_finite_at_extremes(self, name: str, chosen: float, rejected: float) -> None:
        errors = DenoisingErrors(
            *(torch.tensor([each]) for each in (chosen, rejected)), torch.ones(1), torch.ones(1)
        )
        branches = [errors.policy_chosen.requires_grad_(), errors.policy_rejected.requires_grad_()]
        loss = computed(name, errors)
        loss.sum().backward()
        assert torch.isfinite(loss).all()
        assert all(each.grad is None or torch.isfinite(each.grad).all() for each in branches)

    def test_is_listed_with_its_evidence(self, name: str) -> None:
        first, _, options = LOSSES.describe(name).partition("\n")
        assert re.search(r" \[.*(measured on|worked out by hand).*\]$", first)
        assert "None" not in options


def test_variants_by_hand() -> None:
    # Margin 0.5, z = 1 for beta 4; the chosen error has grown by 0.5.
    errors = pairs(1.5, 2.0, 1.0, 1.0)
    up = [math.log1p(math.exp(-z)) for z in (0.0, 0.5, 1.0, 1.5, 2.0)]

    def value(name: str, **options: Any) -> float:
        return computed(name, errors, beta=4.0, **options).item()

    assert value("dpo_positive", penalty=1.0) == pytest.approx(up[0])
    assert value("dpo_positive", penalty=0.5) == pytest.approx(up[1])
    assert value("gap_scaled", gap=8.0, unit=2.0, power=0.5) == pytest.approx(up[4])
    assert value("gap_scaled", gap=8.0, unit=2.0, power=0.5, most=1.5) == pytest.approx(up[3])
    # The reward model's preference is 3 to 1: 2 p - 1 = 1/2.
    assert value("smpo", gap=math.log(9), temperature=2.0, sensitivity=2.0) == pytest.approx(up[2])
    assert value("smpo", gap=-math.log(3), sensitivity=2.0) == pytest.approx(up[2] + 1)
    p = 1 / (1 + math.exp(-1))
    expected = p * math.log(p / 0.8) + (1 - p) * math.log((1 - p) / 0.2)
    assert value("dmpo", label_smoothing=0.2) == pytest.approx(expected)


def test_linear_by_hand() -> None:
    # z = 1, -1, 2, -2: weights 0.1, 0.9 and the limits.
    margins = float64(0.5, -0.5, 1.0, -1.0).requires_grad_()
    losses = linear(margins, beta=4.0, least=0.01)
    assert losses.tolist() == pytest.approx([-0.1, 0.9, -0.02, 1.98])
    losses.sum().backward()
    assert margins.grad is not None
    assert margins.grad.tolist() == pytest.approx([-0.2, -1.8, -0.02, -1.98])


def test_losses_of_single_images_by_hand() -> None:
    # Likelihoods ln 2 / (2 - 1) and 2 ln 2 / (4 - 1) differ by a third of ln 2.
    mapo = computed("mapo", pairs(2 * LN2, 4 * LN2, 1, 1), length=3)
    assert mapo.item() == pytest.approx(2 * LN2 - 0.1 * math.log(2 / 3))
    # Gains 0.5 and -0.5 against a reference point of 0.25: z = 0.5 and -1.5.
    errors = pairs(0.5, 1.5, 1, 1)
    kto = computed("kto", errors, mean_gain=0.25, beta=4.0, desirable=2.0, undesirable=1.0)
    assert kto.item() == pytest.approx(1 / (1 + math.exp(0.5)) + 0.5 / (1 + math.exp(1.5)))
    lower = [computed("kto", errors, mean_gain=each).item() for each in (0.0, -1.0)]
    assert lower[0] == lower[1], "the reference point is never negative"


def test_dspo_is_the_distance_of_residuals() -> None:
    # Residuals (2, 0) and (1, 1), k = 1/2 * 1/2: (2, 0) - (1, -1) / 4 = (1.75, 0.25).
    loss = computed("dspo", pairs(2, 1, 1, 0), shift=float64(1.0), beta=0.5)
    assert loss.item() == pytest.approx((1.75**2 + 0.25**2) / 2)


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
