"""Every loss on the embedded model: same pairs, same steps, an equal search of one constant each.

    python benchmarks/losses/compare.py --output runs/losses    # under two hours on one core
    python benchmarks/losses/tables.py --output runs/losses     # at any time, of what is done

Resumable: killed and started again it goes on. The first rows make a smaller table meanwhile.

1. Three pools, each with its own training prompts and seed: pairs by `nano_checker`, for all rows.
2. Search, on pool 0: three values of the row's constant, each at its own best guidance of a grid,
   on validation prompts. The highest mean score of `nano_checker` is taken; the base is searched
   alike. Examiner and judge have no say.
3. Test: the setting trained on all pools, each with its own test prompts, two images each.

Scores are kept per image in OUTPUT/scores; images are deleted once they are scored.
"""

import argparse
import shutil
import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from tastemaker.config.datasets import PairConfig
from tastemaker.config.sections import GenerateConfig, ScoreConfig
from tastemaker.config.training import TrainConfig
from tastemaker.evaluation.score import score
from tastemaker.nano.captions import prompts
from tastemaker.pairing.pair import pair
from tastemaker.sampling.generate import generate
from tastemaker.storage.pairs import PairSet
from tastemaker.storage.parquet import read_table, write_table
from tastemaker.storage.pool import Pool
from tastemaker.training.preference.train import train

SCALES = (1.5, 3.0, 6.0)
SAMPLER = {"scheduler": "DPMSolverMultistepScheduler", "num_inference_steps": 6, "batch_size": 64}
CHECKER = "nano_checker"
SCORERS: tuple[dict[str, Any], ...] = (
    {"name": CHECKER, "label": "checker"},
    {"name": "nano_examiner", "label": "examiner"},
    {"name": "nano_examiner", "label": "obeyed", "obeyed": True},
    {"name": "nano_judge", "label": "judge"},
)
COLUMNS = tuple(str(scorer["label"]) for scorer in SCORERS)
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


@dataclass(frozen=True)
class Sizes:
    """Numbers of prompts, images and steps; the defaults are those of the tables."""

    training: int = 128
    candidates: int = 4
    steps: int = 48
    guidance: int = 32
    validation: int = 128
    test: int = 96
    images: int = 2
    pools: int = 3
    values: int = 3

    def asked(self, split: str, pool: int) -> list[str]:
        """Return the prompts of a split: guidance is searched on the first of validation."""
        if split == "test":
            return prompts("test", self.test, pool)
        every = prompts("validation", self.validation, pool)
        return every[: self.guidance] if split == "guidance" else every[self.guidance :]


SMOKE = Sizes(2, 2, 1, 1, 2, 1, 2, 1, 1)


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


@dataclass(frozen=True)
class Comparison:
    """Pools, policies and scores in a folder; what is there is not made again."""

    root: Path
    sizes: Sizes

    def pairs(self, pool: int) -> Path:
        """Return the pairs of a pool: the best over the worst candidate by `nano_checker`."""
        folder = self.root / "pools" / str(pool)
        asked = prompts("train", self.sizes.training, pool)
        self.draw("nano", asked, 2.5, pool, folder / "candidates", self.sizes.candidates)
        rule = {"name": "best_worst", "scorer": COLUMNS[0]}
        return pair(PairConfig(rule=rule), folder / "candidates", folder / "pairs")

    def model(self, policy: Policy) -> str:
        """Return a policy's folder, trained where it was not."""
        if policy.row == "base":
            return "nano"
        pairs, steps = self.pairs(policy.pool), self.sizes.steps
        gap = statistics.median(row["margin"] for row in PairSet(pairs).rows())
        # As many draws as epochs: none is repeated.
        draws = None if policy.row in LIVE else -(-16 * steps // self.sizes.training)
        options = {
            "model": "nano",
            "max_steps": steps,
            "batch_size": 16,
            "learning_rate": 2e-3,
            "save_steps": steps,
            "report_to": None,
            "seed": policy.pool,
            "reference_draws": draws,
            **ROWS[policy.row].settings(policy.value, gap),
        }
        config = TrainConfig.model_validate(options)
        return str(train(config, pairs, self.root / "policies" / policy.name))

    @staticmethod
    def draw(
        model: str, asked: list[str], scale: float, seed: int, folder: Path, number: int = 1
    ) -> Pool:
        """Draw and score images: equal prompts and seeds start from equal noise."""
        config = GenerateConfig(
            model=model,
            prompts={"name": "texts", "prompts": asked},
            num_candidates=number,
            guidance_scale=scale,
            seed=seed,
            **SAMPLER,
        )
        score(ScoreConfig(scorers=SCORERS), generate(config, folder))
        return Pool(folder)

    def measure(self, policy: Policy, split: str, scale: float) -> pa.Table:
        """Score a policy's images of the prompts of a split, or read what was scored.

        Args:
            policy: The model that draws.
            split: "guidance", "validation" or "test".
            scale: Guidance.

        Returns:
            A row per image: policy, number of the image and of its prompt, and its scores.
        """
        name = f"{policy.name}-{split}-{scale}"
        file = self.root / "scores" / f"{name}.parquet"
        if file.is_file():
            return read_table(file)
        asked = self.sizes.asked(split, policy.pool)
        number = self.sizes.images if split == "test" else 1
        folder = self.root / "images" / name
        pool = self.draw(self.model(policy), asked, scale, policy.pool, folder, number)
        scores, images = pool.scores(), len(asked) * number
        who = {**vars(policy), "value": float(policy.value), "split": split, "guidance": scale}
        columns = {key: pa.repeat(value, images) for key, value in who.items()}
        columns |= {"number": range(images), "prompt": [i // number for i in range(images)]}
        table = pa.table({**columns, **{column: scores[column] for column in COLUMNS}})
        write_table(file, table)
        shutil.rmtree(folder)
        print(time.strftime("%H:%M:%S"), name, flush=True)
        return table

    def search(self, row: str, value: float) -> tuple[float, float]:
        """Return a setting's best guidance, and its mean score on all validation prompts there."""
        policy = Policy(row, value, 0)
        some = {scale: self.measure(policy, "guidance", scale) for scale in SCALES}
        best = max(SCALES, key=lambda scale: mean(some[scale]))
        return best, mean(pa.concat_tables([some[best], self.measure(policy, "validation", best)]))

    def test(self, row: str) -> None:
        """Measure a row with its own setting on the test prompts."""
        values = (0.0,) if row == "base" else ROWS[row].values[: self.sizes.values]
        found = {value: self.search(row, value) for value in values}
        best = max(values, key=lambda value: found[value][1])
        for pool in range(self.sizes.pools):
            self.measure(Policy(row, best, pool), "test", found[best][0])

    def run(self) -> None:
        """Measure everything that is missing."""
        for row in ("base", *ROWS):
            self.test(row)


def mean(table: pa.Table) -> float:
    """Mean score of the scorer that searches."""
    return float(np.mean(table[COLUMNS[0]].to_numpy()))


def main() -> None:
    """Run what is missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True, help="folder of the runs")
    parser.add_argument(
        "--smoke", action="store_true", help="a few prompts and steps of everything"
    )
    options = parser.parse_args()
    Comparison(options.output, SMOKE if options.smoke else Sizes()).run()


if __name__ == "__main__":
    main()
