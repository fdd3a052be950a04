"""HG-DPO's ablation on portraits: every row of equal steps, equal search and its own guidance.

    python benchmarks/hg_dpo/compare.py --output runs/hg_dpo --data FOLDER

FOLDER holds the portraits, see build.py. Resumable: killed and started again it goes on where it
was, within a training too; in an empty folder it goes on from the committed scores. The queue
begins with what matters most, so that `tables.py --runs runs/hg_dpo` makes valid tables of whatever
is there. Two processes on one folder, of one thread each, share it.

1. The base's best guidance on validation prompts; candidates and reconstructions are drawn at it.
2. Main rows at 180 steps: search of rate and beta, then guidance, by the training scorer's mean on
   validation prompts; images for the captions of held-out photographs; then more training seeds.
3. The same at 540 and at 60 steps, with the setting found at 180 and guidance searched again.
4. The front: main rows at every guidance.
5. The map: naive and curriculum at every rate and length, and on candidates of guidance 1.
6. Rows that single claims need.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

sys.path.insert(0, str(Path(__file__).parents[1]))

from committed import Settings, settings, share
from instruments import Instruments
from results import OTHERS, PHOTOGRAPHS, SCORES, Choices, Model, go_on, write
from rows import COMMON, MAIN, ROWS, SEVERAL, SMALL, Size
from world import DRAWS, LEVELS, MODEL, SAMPLING, WEIGHTS, World

from tastemaker.backbones import merge_adapters
from tastemaker.config.training import TrainConfig
from tastemaker.core.content_hash import file_content
from tastemaker.storage.images import decode
from tastemaker.storage.locks import exclusive
from tastemaker.storage.parquet import read_table
from tastemaker.storage.pool import Pool
from tastemaker.training.preference.train import train

MAPPED = ("naive", "curriculum")


class Comparison:
    """Trains, draws and measures models; what is there is not made again.

    Args:
        world: Pools and pairs.
    """

    def __init__(self, world: World) -> None:
        self.world, self.root, self.size = world, world.root, world.size
        self.choices = Choices(self.score, self.size)
        self.began = time.monotonic()

    @cached_property
    def instruments(self) -> Instruments:
        """Loaded with the first images that are measured."""
        return Instruments(self.world.portraits)

    def score(self, model: Model) -> float:
        """The training scorer's mean on validation prompts."""
        file = self.measured(model, "validation")
        return float(pc.mean(read_table(file, ("preference",))["preference"]).as_py())

    def measured(self, model: Model, part: str) -> Path:
        """Draw and measure a model's images of the part "validation" or "test"."""
        file = self.root / "measured" / f"{part}-{model.name}.parquet"
        if not file.is_file():
            with exclusive(file, beside=True, waits=True):
                if not file.is_file():
                    self._measure(model, part, self.root / "drawn" / file.stem)
        return file

    def _measure(self, model: Model, part: str, place: Path) -> None:
        adapter = {} if model.row == "base" else ROWS[model.row].adapter
        pool = self.world.drawn(self.policy(model), part, model.guidance, adapter, place)
        rows = Pool(pool).candidates(("candidate_id", "prompt", "image")).to_pylist()
        images = [decode(row["image"]["bytes"], row["candidate_id"]) for row in rows]
        self._write(model, part, list(range(len(rows))), images, [row["prompt"] for row in rows])

    def photographs(self) -> None:
        """Measure the held-out photographs, and others of their captions."""
        for name, found in ((PHOTOGRAPHS, self.world.test), (OTHERS, self.world.others())):
            if not (self.root / "measured" / f"test-{Model(name).name}.parquet").is_file():
                there = [(place, each) for place, each in enumerate(found) if each is not None]
                images = [each.picture() for _, each in there]
                captions = [each.caption for _, each in there]
                self._write(Model(name), "test", [place for place, _ in there], images, captions)

    def _write(
        self, model: Model, part: str, places: list[int], images: list[Any], captions: list[str]
    ) -> None:
        """Measure images; `places` are those of the photographs that they belong to."""
        columns = self.instruments.measure(images, captions)
        columns = {"photograph": places, "caption": captions, **columns}
        write(self.root / "measured" / f"{part}-{model.name}.parquet", model, part, columns)
        score = sum(columns["judge"]) / len(images)
        minutes = (time.monotonic() - self.began) / 60
        print(f"{minutes:7.1f} min  {part:<10} {model.name:<50} judge {score:.2f}", flush=True)

    def policy(self, model: Model) -> Path:
        """Train a model."""
        if model.row == "base":
            return Path(MODEL)
        row = ROWS[model.row]
        steps = model.steps // len(row.stages)
        trained = self._trained(row.stages, row.options, steps, model)
        if not row.text:
            return trained
        options = {"method": "frozen", "text_lora": {"r": 64}}
        text = self._trained(("easy",), options, steps, model)
        place = self.root / "policies" / f"{model.name}-merged"
        with exclusive(place, beside=True, waits=True):
            return merge_adapters([trained, text], place)

    def _trained(self, stages: tuple[str, ...], own: Any, steps: int, model: Model) -> Path:
        setting = {"learning_rate": model.rate, "seed": model.seed, "max_steps": steps}
        if model.beta:
            setting["loss"] = {"name": "dpo", "beta": model.beta}
        options = {"model": MODEL, **COMMON, **setting, **own}
        if stages[1:]:
            before = self._trained(stages[:-1], own, steps, model)
            options |= {"start": str(before), "reference": "frozen_adapter"}
        # A curriculum's first stage is that of a shorter training on easy pairs alone.
        named = replace(model, row=" ".join([*stages, *own]), steps=steps, guidance=0.0).name
        place, pairs = self.root / "policies" / named, self.world.pairs(stages[-1], model.pool)
        with exclusive(place, beside=True, waits=True):
            return train(TrainConfig.model_validate(options), pairs, place)

    def queue(self) -> Iterator[Callable[[], Model]]:
        """Yield what finds the models to measure on held-out captions, most important first."""
        lengths, scales, found = self.size.lengths, self.size.scales, self.found
        yield partial(found, "base", 0)
        yield from (partial(found, row, lengths[1]) for row in MAIN)
        for steps in (lengths[1], *lengths[2:], lengths[0]):
            for row in MAIN:
                seeds = self.size.seeds if row in SEVERAL else self.size.seeds[:1]
                yield from (partial(found, row, steps, seed=seed) for seed in seeds)
        for scale in scales:
            yield from (partial(found, row, lengths[1], guidance=scale) for row in ("base", *MAIN))
        # The map; guidance is that of the chosen setting at the same length.
        for steps in lengths:
            for row in MAPPED:
                yield from (partial(found, row, steps, rate=rate) for rate in self.size.rates)
                yield partial(found, row, steps, pool=1.0)
        yield from (partial(found, row, lengths[1]) for row in ROWS if row not in MAIN)

    def found(self, row: str, steps: int, **changed: Any) -> Model:
        """Search a row's model of a length, and change something of it."""
        base = row == "base"
        return replace(self.choices.base if base else self.choices.chosen(row, steps), **changed)

    def run(self) -> None:
        """Measure what is missing, beside other processes."""
        work: dict[str, Callable[[], object]] = {"photographs": self.photographs}
        for number, found in enumerate(self.queue()):
            work[str(number)] = partial(self._tested, found)
        share(self.root, work)

    def _tested(self, found: Callable[[], Model]) -> Path:
        return self.measured(found(), "test")


def settings_of(size: Size, data: Path) -> Settings:
    """What measured images depend on.

    Args:
        size: Of the comparison; how many settings, lengths and seeds there are changes none.
        data: Folder of the portraits.
    """
    numbers = ("items", "candidates", "portraits", "prompts")
    return settings(
        {
            name: {key: value for key, value in asdict(row).items() if key != "like"}
            for name, row in ROWS.items()
        },
        WEIGHTS,
        size={name: getattr(size, name) for name in numbers},
        data=file_content(data / "metadata.jsonl"),
        training=COMMON,
        sampling=SAMPLING,
        levels=LEVELS,
        draws=DRAWS,
    )


def main() -> None:
    """Measure what is missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--data", type=Path, required=True, help="folder of the portraits")
    parser.add_argument("--small", action="store_true", help="everything once, in minutes")
    options = parser.parse_args()
    root, size = options.output.resolve(), SMALL if options.small else Size()
    go_on(root, SCORES, settings_of(size, options.data))
    Comparison(World(root, options.data, size)).run()


if __name__ == "__main__":
    main()
