"""HG-DPO's ablation on portraits: every row tuned alike, the final figures on what no search saw.

    python benchmarks/hg_dpo/compare.py --output runs/hg_dpo --data FOLDER --processes 2

FOLDER holds the portraits, see build.py. Resumable: killed and started again it goes on. Writes
results.json, table.md, search.md and the pictures beside this file. Two processes of one thread are
nearly twice as fast as one of two; with `--rows` it works on some rows alone and writes no results.

1. One pool of real portraits, candidates and reconstructions for all rows (`world.py`).
2. Search: each row of `rows.py` chooses among its settings, seed 0, on validation prompts: the
   smallest Frechet distance to 400 training portraits in the training scorer's features, among
   the settings whose images that scorer prefers to the base's; if there is none, the highest win
   rate. The judge and the held-out portraits have no say.
3. Table: each row with its setting, on captions of held-out portraits.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from rows import COMMON, MAIN, REWARD, ROWS, Options
from tables import write_tables
from world import Row, World, distance, label

from tastemaker.backbones import merge_adapters
from tastemaker.config.training import RewardTrainConfig, TrainConfig
from tastemaker.storage.files import write_json
from tastemaker.training.preference.train import train
from tastemaker.training.reward.train import train_reward

HERE = Path(__file__).parent
SEEDS = (0, 1, 2)


class Comparison:
    """Trains and measures rows; what was measured before is read back.

    Args:
        world: Pools and pairs.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.root = world.root
        self.chosen: dict[str, Options] = {}
        self.search: dict[str, list[dict[str, Any]]] = {}

    def choose(self, name: str) -> None:
        """Find a row's setting on the validation prompts."""
        if name in self.chosen:
            return
        row = ROWS[name]
        for other in (row.like, row.start, row.text):
            if other is not None and other not in self.chosen:
                self.choose(other)
        if row.like is not None:
            self.chosen[name] = self.chosen[row.like]
            return
        self.search[name] = [
            {"setting": setting, **self.measured(name, setting, 0, "validation")}
            for setting in row.settings
        ]
        self.chosen[name] = max(self.search[name], key=_merit)["setting"]
        print(f"{name}: {label(self.chosen[name])}", flush=True)

    def figures(self, name: str) -> list[Row]:
        """A row's final figures, one a seed."""
        seeds = SEEDS if name in MAIN else SEEDS[:1]
        return [self.measured(name, self.chosen[name], seed, "test") for seed in seeds]

    def measured(self, name: str, setting: Options, seed: int, part: str) -> Row:
        """Train a row and judge it, or read it back."""
        key = f"{_slug(name)}-{label(setting)}-s{seed}"
        file = self.root / "measured" / part / f"{key}.json"
        if not file.is_file():
            began = time.monotonic()
            policy = self.policy(name, setting, seed)
            found = self.world.measured(key, policy, part, ROWS[name].adapter)
            write_json(file, {**found, "pool": key, "seconds": time.monotonic() - began})
            print(f"{part:<10} {key:<48} {_short(found)}", flush=True)
        return dict(json.loads(file.read_text(encoding="utf-8")))

    def policy(self, name: str, setting: Options, seed: int) -> Path:
        """The trained model of a row, on the models that it goes on from."""
        row = ROWS[name]
        key = f"{_slug(name)}-{label(setting)}-s{seed}"
        folder = self.root / "policies" / key
        if row.pairs is None:
            prompts = str(self.world.portraits / "prompts" / "train.txt")
            options = {**REWARD, "prompts": prompts, **row.options, **setting, "seed": seed}
            return train_reward(RewardTrainConfig.model_validate(options), folder)
        options = {**COMMON, **row.options, **setting, "seed": seed}
        if row.start is not None:
            before = self.policy(row.start, self.chosen[row.start], seed)
            options |= {"start": str(before), "reference": "frozen_adapter"}
        trained = train(TrainConfig.model_validate(options), self.world.pairs(row.pairs), folder)
        if row.text is None:
            return trained
        before = self.policy(row.text, self.chosen[row.text], seed)
        return merge_adapters([before, trained], self.root / "policies" / f"{key}-merged")


def main() -> None:
    """Run what is missing, then write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--data", type=Path, required=True, help="folder of the portraits")
    parser.add_argument("--rows", nargs="+", choices=ROWS, help="only these rows")
    parser.add_argument("--processes", type=int, choices=(1, 2), default=1)
    options = parser.parse_args()
    if options.processes == 2:
        _share(options.output, options.data)
    work = Comparison(World(options.output, options.data))
    for name in options.rows or ROWS:
        work.choose(name)
    table = {name: work.figures(name) for name in options.rows or ROWS if ROWS[name].shown}
    if options.rows:
        return
    results = {"chosen": work.chosen, "search": work.search, "table": table}
    write_json(HERE / "results.json", results)
    write_tables(HERE, options.output, results)


def _share(output: Path, data: Path) -> None:
    """Work on the rows in two processes: those of one training, and those that are stages."""
    world = World(output, data)
    for kind in ("easy", "normal", "hard", "naive", "mixed"):  # pools and pairs that both need
        world.pairs(kind)
    world.images.held_out()
    world.searched()
    one = [name for name, row in ROWS.items() if row.start is None and row.settings]
    alone = [name for name in one if name not in ("easy", "hard + text encoder")]
    shares = (alone, [name for name in ROWS if name not in alone])
    command = [sys.executable, __file__, "--output", str(output), "--data", str(data), "--rows"]
    started = [
        subprocess.Popen([*command, *rows], env={**os.environ, "OMP_NUM_THREADS": "1"})
        for rows in shares
    ]
    ended = [each.wait() for each in started]  # both, also where one failed
    if any(ended):
        sys.exit("a process failed; mend what it says and start again")


def _merit(found: Row) -> tuple[bool, float]:
    rate = float(found["model"]["scores"]["preference"]["win_rate"])
    return (True, -distance(found)) if rate > 0.5 else (False, rate)


def _slug(name: str) -> str:
    return "".join(each if each.isalnum() else "-" for each in name)


def _short(found: Row) -> str:
    rates = ", ".join(
        f"{name} {100 * found['model']['scores'][name]['win_rate']:.1f}%"
        for name in ("preference", "judge")
    )
    return f"{rates}, distance {distance(found):.1f} (base {distance(found, 'base'):.1f})"


if __name__ == "__main__":
    main()
