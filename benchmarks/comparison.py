"""What comparisons on the embedded model share: pools of pairs, drawing, measuring, going on."""

import argparse
import shutil
import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
from committed import Settings, commit, committed, read, settings, settle, share
from gains import CHECKER, COLUMNS, OBEYED, SCALES, Cell, Policy, chosen, columns, parts

from tastemaker.config.datasets import PairConfig
from tastemaker.config.sections import GenerateConfig, ScoreConfig
from tastemaker.config.training import TrainConfig
from tastemaker.evaluation.score import score
from tastemaker.nano.captions import prompts
from tastemaker.pairing.pair import pair
from tastemaker.sampling.generate import generate
from tastemaker.storage.locks import exclusive
from tastemaker.storage.parquet import write_table
from tastemaker.storage.pool import Pool
from tastemaker.training.preference.train import train

SAMPLER = {"scheduler": "DPMSolverMultistepScheduler", "num_inference_steps": 6, "batch_size": 64}
SCORERS: tuple[dict[str, Any], ...] = (
    {"name": "nano_checker", "label": CHECKER},
    {"name": "nano_examiner", "label": "examiner"},
    {"name": "nano_examiner", "label": OBEYED, "obeyed": True},
    {"name": "nano_judge", "label": "judge"},
)
TRAINING = {"learning_rate": 2e-3, "report_to": None}
"""Options of every training, beside those of its row and its sizes."""
SMALL = {"pool": pa.int8(), "number": pa.int16(), "prompt": pa.int16(), OBEYED: pa.int8()}
"""Types of committed columns that take little room."""


@dataclass(frozen=True)
class Sizes:
    """Numbers of prompts, images, pairs and steps.

    Attributes:
        training: Prompts of a pool, with `candidates` images each.
        steps: Of the optimizer, with `batch` pairs each.
        guidance: The first prompts of validation, on which guidance is searched.
        validation: Prompts on which settings are searched.
        test: Prompts, with `images` each.
        pools: Pools that a row is tested on.
        values: Settings that a row's search tries, at most.
    """

    training: int = 128
    candidates: int = 4
    steps: int = 48
    batch: int = 16
    guidance: int = 32
    validation: int = 128
    test: int = 96
    images: int = 2
    pools: int = 3
    values: int = 3

    def asked(self, split: str, pool: int) -> list[str]:
        """Return the prompts of a split; those of guidance are not among validation's."""
        if split == "test":
            return prompts("test", self.test, pool)
        every = prompts("validation", self.validation, pool)
        return every[: self.guidance] if split == "guidance" else every[self.guidance :]

    @property
    def scored(self) -> dict[str, int]:
        """Sizes that scores depend on: how many pools and settings there are changes none."""
        counts = ("pools", "values", "band_pools")
        return {name: number for name, number in asdict(self).items() if name not in counts}


def draw(model: str, asked: list[str], scale: float, seed: int, folder: Path, **own: Any) -> Pool:
    """Draw images: equal prompts and seeds start from equal noise."""
    options = {"num_candidates": 1, **SAMPLER, **own}
    texts = {"name": "texts", "prompts": asked}
    config = {"model": model, "prompts": texts, "guidance_scale": scale, "seed": seed, **options}
    return Pool(generate(GenerateConfig.model_validate(config), folder))


@dataclass(frozen=True)
class Comparison:
    """Pools, policies and scores in a folder; what is there is not made again."""

    root: Path
    sizes: Any
    policy: ClassVar[type]
    """Type of policies."""
    column: ClassVar[str]
    """Its field that names a row."""
    rows: ClassVar[tuple[Hashable, ...]]
    """In the order in which they are measured."""
    described: ClassVar[Mapping[str, Any]]
    """What scores of a row depend on, by the value of `column`."""
    tried: ClassVar[Callable[[Hashable, int], Mapping[Policy, Policy]]]
    """What is tested of a row, by the policy that is searched in its place."""

    def model(self, policy: Policy) -> str:
        """Return a policy's folder, trained where it was not."""
        raise NotImplementedError

    def trained(self, policy: Policy, base: str, pairs: Path, own: Mapping[str, Any]) -> str:
        """Train a policy, unless it is there.

        Args:
            policy: The policy.
            base: Model that it starts from.
            pairs: What it trains on.
            own: Options of its row.
        """
        sizes, folder = self.sizes, self.root / "policies" / policy.name
        options = {
            "model": base,
            "max_steps": sizes.steps,
            "batch_size": sizes.batch,
            "save_steps": sizes.steps,
            "seed": policy.pool,
            # As many draws as epochs: none is repeated, and settings share the reference's errors.
            "reference_draws": -(-sizes.batch * sizes.steps // sizes.training),
            **TRAINING,
            **own,
        }
        with exclusive(folder, beside=True, waits=True):
            return str(train(TrainConfig.model_validate(options), pairs, folder))

    def pools(self, row: Hashable) -> int:
        """Return the number of pools that a row is tested on."""
        return self.sizes.pools

    @property
    def settings(self) -> Settings:
        """What scores depend on."""
        common = {"scales": SCALES, "sampler": SAMPLER, "scorers": SCORERS, "training": TRAINING}
        return settings(self.described, sizes=self.sizes.scored, **common)

    def pairs(self, pool: int) -> Path:
        """Return the pairs of a pool: the best over the worst candidate by `nano_checker`."""
        return self.paired("nano", pool, self.root / "pools" / str(pool), 2.5)

    def paired(self, model: str, pool: int, folder: Path, scale: float, **own: Any) -> Path:
        """Draw and score candidates for a pool's training prompts, and pair them."""
        asked, number = prompts("train", self.sizes.training, pool), self.sizes.candidates
        with exclusive(folder, beside=True, waits=True):
            place = folder / "candidates"
            drawn = draw(model, asked, scale, pool, place, num_candidates=number, **own)
            score(ScoreConfig(scorers=SCORERS), drawn.folder)
            rule = {"name": "best_worst", "scorer": CHECKER}
            return pair(PairConfig(rule=rule), place, folder / "pairs")

    def file(self, policy: Policy, split: str, scale: float) -> Path:
        """Place of the scores of a policy's images of a split."""
        return self.root / "scores" / f"{policy.name}-{split}-{scale}.parquet"

    def measure(self, policy: Policy, split: str, scale: float) -> pa.Table:
        """Score a policy's images of the prompts of a split, or read what was scored.

        Args:
            policy: The model that draws.
            split: "guidance", "validation" or "test".
            scale: Guidance.

        Returns:
            A row per image: policy, number of the image and of its prompt, and its scores.
        """
        file = self.file(policy, split, scale)
        if not file.is_file():
            with exclusive(file, beside=True, waits=True):
                if not file.is_file():
                    pool = self.drawn(policy, split, scale)
                    score(ScoreConfig(scorers=SCORERS), pool.folder)
                    write_table(file, self.scored(policy, split, scale, pool))
                    if not self.kept(policy):
                        shutil.rmtree(pool.folder)
                    print(time.strftime("%H:%M:%S"), file.stem, flush=True)
        return read(file)

    def cell(self, policy: Policy, split: str, scale: float) -> Cell:
        """Columns of what `measure` returns."""
        return columns(self.measure(policy, split, scale))

    def drawn(self, policy: Policy, split: str, scale: float, **own: Any) -> Pool:
        """Draw a policy's images of the prompts of a split, unless they lie there."""
        folder = self.root / "images" / f"{policy.name}-{split}-{scale}"
        asked = self.sizes.asked(split, policy.pool)
        number = self.sizes.images if split == "test" else 1
        with exclusive(folder, beside=True, waits=True):
            model = self.model(policy)
            return draw(model, asked, scale, policy.pool, folder, num_candidates=number, **own)

    def kept(self, policy: Policy) -> bool:
        """Return whether a policy's images are kept when they are scored."""
        return False

    def scored(self, policy: Policy, split: str, scale: float, pool: Pool) -> pa.Table:
        """Return the scores of a pool with what they are of."""
        scores, number = pool.scores(), self.sizes.images if split == "test" else 1
        images = len(scores[CHECKER])
        who = {**vars(policy), "split": split, "guidance": scale}
        found = {key: pa.repeat(value, images) for key, value in who.items()}
        found |= {"number": range(images), "prompt": [i // number for i in range(images)]}
        return pa.table({**found, **{column: scores[column] for column in COLUMNS}})

    def test(self, row: Hashable) -> None:
        """Measure a row with its own setting on the test prompts."""
        policy, scale = chosen(self.cell, self.tried(row, self.sizes.values))
        for pool in range(self.pools(row)):
            self.measure(replace(policy, pool=pool), "test", scale)

    def run(self, file: Path) -> None:
        """Measure everything that is missing, beside other processes, and go on from a table.

        Args:
            file: Committed scores.
        """
        settle(self.root, self.settings)
        table = committed(file, self.settings, self.column)
        for key, part in ({} if table is None else parts(table, self.policy)).items():
            if not self.file(*key).is_file():
                write_table(self.file(*key), part)
        share(self.root, {str(row): partial(self.test, row) for row in self.rows})

    def commit(self, file: Path) -> None:
        """Gather all scores of the folder in one table."""
        settle(self.root, self.settings)
        found = [read(each) for each in sorted((self.root / "scores").glob("*.parquet"))]
        kinds = [(name, SMALL.get(name, found[0][name].type)) for name in found[0].column_names]
        tables = [each.select(found[0].column_names).cast(pa.schema(kinds)) for each in found]
        commit(file, pa.concat_tables(tables), self.settings)


def options(description: str | None, smoke: bool = True) -> argparse.Namespace:
    """Parse the command line: of a comparison, or, without `smoke`, of its tables."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--output", type=Path, required=smoke, help="folder of the runs")
    if smoke:
        parser.add_argument("--smoke", action="store_true", help="a few prompts and steps of all")
    return parser.parse_args()
