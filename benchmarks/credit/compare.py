"""Every credit scheme on both twins of the embedded model: same pairs, same steps, same search.

    python benchmarks/credit/compare.py --output runs/credit    # five hours on one core
    python benchmarks/credit/tables.py --output runs/credit     # at any time, of what is done

Resumable: killed and started again it goes on. Main rows come first, so that what is done at any
time makes a smaller table. A row is a scheme on a twin: `v`, the embedded model, which predicts v,
or `noise`, distilled from it (noise_twin.py).

1. Five pools, each with its own training prompts and seed: pairs by `nano_checker`, for all rows.
2. Search, on pool 0: five betas, each at its own best guidance of a grid, on validation prompts.
   The highest mean score of `nano_checker` is taken. Examiner and judge have no say.
3. Test: the setting trained on all pools, each with its own test prompts.
4. Bands: the uniform loss on a tenth of the timesteps each, with uniform's setting, on test
   prompts of three pools.

Scores are kept per image in OUTPUT/scores; images are deleted once they are scored, the base's
apart, to which distances are measured.
"""

import argparse
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from noise_twin import twin

from tastemaker.config.datasets import PairConfig
from tastemaker.config.sections import GenerateConfig, ScoreConfig
from tastemaker.config.training import TrainConfig
from tastemaker.evaluation.score import score
from tastemaker.nano.captions import prompts
from tastemaker.pairing.pair import pair
from tastemaker.sampling.generate import generate
from tastemaker.storage.images import decode
from tastemaker.storage.parquet import read_table, write_table
from tastemaker.storage.pool import Pool
from tastemaker.training.preference.train import train

BETAS = (31, 125, 500, 2000, 8000)
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
SCHEMES: dict[str, dict[str, Any]] = {
    "uniform": {"credit": "uniform"},
    "window 200-700": {"credit": {"name": "window", "low": 200, "high": 700}},
    "discounted": {"credit": "discounted"},
    "dde_single": {"credit": "dde_single"},
    "dde_step": {"credit": {"name": "dde_step", "buckets": 20}},
    "dde": {"credit": {"name": "dde", "buckets": 20}},
    "dde_single, no clip": {"credit": {"name": "dde_single", "kappa_max": None}},
    "dde, no clip": {"credit": {"name": "dde", "buckets": 20, "kappa_max": None}},
    "uniform, kept noise": {"credit": "uniform", "noise": "kept"},
}
BANDS = {
    f"{low}-{low + 100}": {"credit": {"name": "window", "low": low, "high": low + 100}}
    for low in range(0, 1000, 100)
}
MAIN = ("uniform", "dde_single", "dde", "window 200-700")
OTHER = tuple(scheme for scheme in SCHEMES if scheme not in MAIN)
ROWS = (
    *(("noise", scheme) for scheme in MAIN),
    *(("v", scheme) for scheme in MAIN),
    *(("noise", scheme) for scheme in OTHER),
    *(("noise", band) for band in BANDS),
    # kappa is at most 1 where v is predicted: a clip at 10 changes nothing there.
    *(("v", scheme) for scheme in OTHER if "no clip" not in scheme),
    *(("v", band) for band in BANDS),
)
"""Twin and scheme of the rows in the order in which they are measured."""


@dataclass(frozen=True)
class Sizes:
    """Numbers of prompts, images and steps; the defaults are those of the tables."""

    training: int = 128
    candidates: int = 4
    steps: int = 48
    guidance: int = 64
    validation: int = 384
    test: int = 192
    pools: int = 5
    band_pools: int = 3
    distillation: int = 1200
    betas: tuple[int, ...] = BETAS

    def asked(self, split: str, pool: int) -> list[str]:
        """Return the prompts of a split: guidance is searched on the first of validation."""
        if split == "test":
            return prompts("test", self.test, pool)
        every = prompts("validation", self.validation, pool)
        return every[: self.guidance] if split == "guidance" else every[self.guidance :]


SMOKE = Sizes(2, 2, 2, 2, 3, 2, 2, 1, 2, (500,))


@dataclass(frozen=True)
class Policy:
    """A trained policy; scheme `base` is the twin as it was, of beta 0."""

    twin: str
    scheme: str
    beta: int
    pool: int

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"{self.twin}-{self.scheme}-{self.beta}-{self.pool}".replace(" ", "_").replace(
            ",", ""
        )


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

    def noise_twin(self) -> Path:
        """Return the twin that predicts noise."""
        return twin(self.pairs(0), self.root / "twin", self.sizes.distillation)

    def model(self, policy: Policy) -> str:
        """Return a policy's folder, trained where it was not."""
        base = "nano" if policy.twin == "v" else str(self.noise_twin())
        if policy.scheme == "base":
            return base
        steps = self.sizes.steps
        config = TrainConfig(
            model=base,
            loss={"name": "dpo", "beta": policy.beta},
            max_steps=steps,
            batch_size=16,
            learning_rate=2e-3,
            save_steps=steps,
            report_to=None,
            seed=policy.pool,
            # As many as epochs: no draw is repeated, and all betas share the reference's errors.
            reference_draws=-(-16 * steps // self.sizes.training),
            **(SCHEMES | BANDS)[policy.scheme],
        )
        return str(train(config, self.pairs(policy.pool), self.root / "policies" / policy.name))

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
            policy: What draws.
            split: "guidance", "validation" or "test".
            scale: Guidance.

        Returns:
            A row per image: who drew it, for which prompt, with its scores and its `distance`, the
            root mean square difference to the base's image of the same prompt, noise and guidance
            in grey levels.
        """
        name = f"{policy.name}-{split}-{scale}"
        file = self.root / "scores" / f"{name}.parquet"
        if file.is_file():
            return read_table(file)
        asked = self.sizes.asked(split, policy.pool)
        folder = self.root / "images" / name
        pool = self.draw(self.model(policy), asked, scale, policy.pool, folder)
        distances = np.zeros(len(asked))
        if policy.scheme != "base":
            base = Policy(policy.twin, "base", 0, policy.pool)
            self.measure(base, split, scale)
            changes = pixels(pool) - pixels(
                Pool(self.root / "images" / f"{base.name}-{split}-{scale}")
            )
            distances = np.sqrt(np.square(changes).mean((1, 2, 3)))
        scores = pool.scores()
        who = {**vars(policy), "split": split, "guidance": scale}
        columns = {key: pa.repeat(value, len(asked)) for key, value in who.items()}
        columns |= {"number": range(len(asked)), **{name: scores[name] for name in COLUMNS}}
        table = pa.table({**columns, "distance": distances.astype(np.float32)})
        write_table(file, table)
        if policy.scheme != "base":
            shutil.rmtree(folder)
        print(time.strftime("%H:%M:%S"), name, flush=True)
        return table

    def search(self, twin: str, scheme: str, beta: int) -> tuple[float, float]:
        """Return a setting's best guidance, and its mean score on all validation prompts there."""
        policy = Policy(twin, scheme, beta, 0)
        some = {scale: self.measure(policy, "guidance", scale) for scale in SCALES}
        best = max(SCALES, key=lambda scale: mean(some[scale]))
        return best, mean(pa.concat_tables([some[best], self.measure(policy, "validation", best)]))

    def chosen(self, twin: str, scheme: str) -> tuple[int, float]:
        """Return the beta and the guidance of a row."""
        betas = (0,) if scheme == "base" else self.sizes.betas
        found = {beta: self.search(twin, scheme, beta) for beta in betas}
        best = max(betas, key=lambda beta: found[beta][1])
        return best, found[best][0]

    def run(self) -> None:
        """Measure everything that is missing, main rows first."""
        for kind in ("noise", "v"):
            self.test(kind, "base")
        for kind, scheme in ROWS:
            self.test(kind, scheme)

    def test(self, twin: str, scheme: str) -> None:
        """Measure a row with its own setting, a band with uniform's, on the test prompts."""
        beta, scale = self.chosen(twin, "uniform" if scheme in BANDS else scheme)
        for pool in range(self.sizes.band_pools if scheme in BANDS else self.sizes.pools):
            self.measure(Policy(twin, scheme, beta, pool), "test", scale)


def mean(table: pa.Table) -> float:
    """Mean score of the scorer that searches."""
    return float(np.mean(table[COLUMNS[0]].to_numpy()))


def pixels(pool: Pool) -> np.ndarray:
    """Grey levels of a pool's images, [images, h, w, 3]."""
    rows = pool.candidates(("candidate_id", "image")).to_pylist()
    images = [decode(row["image"]["bytes"], row["candidate_id"]) for row in rows]
    return np.stack([np.asarray(image, np.float32) for image in images])


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
