"""Train with a loss of your own: DPO-Positive, weighted by the gap of the scores."""

import torch
import torch.nn.functional as F

import tastemaker as tm


def scaled_dpop(
    errors: tm.DenoisingErrors,
    score_gap: torch.Tensor,
    *,
    beta: float = 5000.0,
    penalty: float = 5.0,
) -> torch.Tensor:
    """`-gap / mean(gap) * logsigmoid(0.5 * beta * (margin - penalty * growth of chosen error))`."""
    growth = torch.relu(-errors.chosen_gain)
    z = 0.5 * beta * (errors.margin - penalty * growth)
    return -score_gap / score_gap.mean() * F.logsigmoid(z)


def main(pairs: str = "runs/demo/pairs", output: str = "own-loss", max_steps: int = 50) -> None:
    """Train on the demo's pairs, after `tastemaker run demo`."""
    tm.train(
        pairs=pairs,
        output=output,
        model="nano",
        loss={"name": scaled_dpop, "beta": 2000.0},
        max_steps=max_steps,
        learning_rate=1e-3,
        report_to=None,
    )


if __name__ == "__main__":
    main()
