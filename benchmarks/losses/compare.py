"""Every loss on the embedded model: same pairs, same steps, an equal search of one constant each.

    python benchmarks/losses/compare.py --output runs/losses    # under two hours on one core
    python benchmarks/losses/tables.py --output runs/losses     # at any time, of what is done

Resumable: killed and started again it goes on, in an empty folder from the committed scores. Two
processes on one folder share the rows. The first rows make a smaller table meanwhile.

1. Three pools, each with its own training prompts and seed: pairs by `nano_checker`, for all rows.
2. Search, on pool 0: three values of the row's constant, each at its own best guidance of a grid,
   on validation prompts. The highest mean score of `nano_checker` is taken; the base is searched
   alike. Examiner and judge have no say.
3. Test: the setting trained on all pools, each with its own test prompts, two images each.

Scores are kept per image in OUTPUT/scores; images are deleted once they are scored.
"""

import statistics
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

sys.path.insert(0, str(Path(__file__).parents[1]))

from comparison import Comparison, Sizes, options

from tastemaker.storage.pairs import PairSet

SCORES = Path(__file__).parent / "scores.parquet"
MEDIAN = "median gap"
"""In a row's options: the median score gap of the pairs."""


@dataclass(frozen=True)
class Row:
    """A loss with the constant that is searched.

    Attributes:
        loss: Its name.
        values: Of the constant.
        constant: Option of the loss, or of the training where it has a dot before it.
        options: Further options of the loss.
        training: Further options of the training.
    """

    loss: str
    values: tuple[float, ...] = (125, 500, 2000)
    constant: str = "beta"
    options: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)

    def settings(self, value: float, gap: float) -> dict[str, Any]:
        """Return options of a training.

        Args:
            value: Of the constant.
            gap: Median score gap of the pairs.
        """
        loss = {k: gap if v == MEDIAN else v for k, v in self.options.items()}
        if self.constant.startswith("."):
            own = {self.constant[1:]: value}
        else:
            own, loss = {}, {**loss, self.constant: value}
        return {"loss": {"name": self.loss, **loss}, **self.training, **own}


EMA = {"reference": "synced", "ref_model_mixup_alpha": 0.05, "ref_model_sync_steps": 1}
ROWS = {
    "dpo": Row("dpo"),
    "sft": Row("sft", (2e-4, 6e-4, 2e-3), ".learning_rate"),
    "kto": Row("kto"),
    "mapo": Row("mapo", (0.01, 0.1, 1)),
    "smpo": Row("smpo", options={"sensitivity": 1.0}),
    "gap_scaled": Row("gap_scaled", options={"unit": MEDIAN}),
    "dmpo": Row("dmpo"),
    "linear": Row("linear"),
    "dspo": Row("dspo", (0.001, 0.03, 0.5)),
    "dpo_positive": Row("dpo_positive"),
    "ipo": Row("ipo"),
    "hinge": Row("hinge"),
    "robust": Row("robust"),
    "dpo, safeguard per pair": Row("dpo", training={"guards": {"safeguard": 0.1}}),
    "dpo, safeguard per batch": Row(
        "dpo", training={"guards": {"safeguard": 0.1, "safeguard_over": "batch"}}
    ),
    "dpo, EMA as reference": Row("dpo", training=EMA),
    "linear, EMA as reference": Row("linear", training=EMA),
}
"""In the order in which they are measured."""

LIVE = {"dspo", *(name for name, row in ROWS.items() if row.training is EMA)}
"""Rows that need a live reference; the others share the reference's errors."""


SIZES = Sizes()
SMOKE = Sizes(2, 2, 1, 16, 1, 2, 1, 2, 1, 1)


@dataclass(frozen=True)
class Policy:
    """A trained policy; row `base` is the embedded model, of constant 0."""

    row: str
    value: float
    pool: int

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"{self.row}-{self.value:g}-{self.pool}".replace(" ", "_").replace(",", "")


def tried(row: str, number: int = SIZES.values) -> dict[Policy, Policy]:
    """Return the policies of a row's search, each of which is tested itself."""
    values = (0,) if row == "base" else ROWS[row].values[:number]
    policies = [Policy(row, float(value), 0) for value in values]
    return dict(zip(policies, policies, strict=True))


class Losses(Comparison):
    """The comparison of losses."""

    policy, column, tried = Policy, "row", staticmethod(tried)
    rows = ("base", *ROWS)
    described: ClassVar[dict[str, Any]] = {
        name: asdict(row) | {"values": None} for name, row in ROWS.items()
    }

    def model(self, policy: Policy) -> str:
        if policy.row == "base":
            return "nano"
        pairs = self.pairs(policy.pool)
        gap = statistics.median(row["margin"] for row in PairSet(pairs).rows())
        own = ROWS[policy.row].settings(policy.value, gap)
        live = {"reference_draws": None} if policy.row in LIVE else {}
        return self.trained(policy, "nano", pairs, {**own, **live})


def main() -> None:
    """Run what is missing."""
    given = options(__doc__)
    Losses(given.output, SMOKE if given.smoke else SIZES).run(SCORES)


if __name__ == "__main__":
    main()
