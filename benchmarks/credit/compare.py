"""Every credit scheme on the embedded model: same pairs, same steps, three training seeds.

    python benchmarks/credit/compare.py --output runs/credit

Resumable: killed and started again it goes on. Writes results.json, table.md, bands.png and
drift.png beside this file.

1. One pool of candidates and one set of pairs for all.
2. Search: each scheme with the same number of settings, on validation prompts, seed 0. The setting
   with the highest win rate by the training scorer is taken. The judge has no say.
3. Table: each scheme with its setting, seeds 0 to 2, on test prompts.
4. Bands: the uniform loss on a tenth of the timesteps each, seeds 0 to 2.
"""

import argparse
import json
import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import torch
from safetensors.torch import load_file

from tastemaker.config.loading import load
from tastemaker.evaluation.evaluate import evaluate
from tastemaker.metrics.frechet import frechet_distance
from tastemaker.nano import JUDGE
from tastemaker.pairing.pair import pair
from tastemaker.recipes.candidates import scored_candidates
from tastemaker.scorers.clip import ClipScorer
from tastemaker.storage.files import write_json
from tastemaker.storage.images import decode
from tastemaker.storage.pool import Pool
from tastemaker.storage.run_dir import RunDir
from tastemaker.training.preference.train import train

HERE = Path(__file__).parent
SEEDS = (0, 1, 2)
SCORERS = ("nano_preference", "nano_judge")
BETAS = (500, 2000, 8000)
RATES = (1e-4, 3e-4, 1e-3)
COMMON = (
    "generate.prompts={name: nano_train, number: 128}",
    "generate.num_candidates=6",
    "train.max_steps=60",
    "train.batch_size=16",
    "train.learning_rate=2e-3",
    "train.save_steps=60",
    "train.report_to=null",
    "evaluate.num_images=2",
)
VALIDATION = "evaluate.prompts={name: nano_validation, number: 128}"
TEST = "evaluate.prompts={name: nano_test, number: 128}"


Row = dict[str, Any]


@dataclass(frozen=True)
class Scheme:
    """A way of training: its options, and the settings that the search chooses from."""

    options: tuple[str, ...]
    settings: tuple[str, ...] = tuple(f"train.loss.beta={beta}" for beta in BETAS)


SCHEMES = {
    "sft": Scheme(("train.loss=sft",), tuple(f"train.learning_rate={rate}" for rate in RATES)),
    "uniform": Scheme(("train.credit=uniform",)),
    "discounted": Scheme(("train.credit=discounted",)),
    "window 200-700": Scheme(("train.credit={name: window, low: 200, high: 700}",)),
    "dde_single": Scheme(("train.credit=dde_single",)),
    "dde_step": Scheme(("train.credit={name: dde_step, buckets: 20}",)),
    "dde": Scheme(("train.credit={name: dde, buckets: 20}",)),
}
BANDS = {
    f"{low}-{low + 100}": f"train.credit={{name: window, low: {low}, high: {low + 100}}}"
    for low in range(0, 1000, 100)
}


@dataclass
class Comparison:
    """The shared pool and pairs, and the rows measured so far."""

    root: Path
    real: dict[str, torch.Tensor] = field(init=False)
    judge: ClipScorer = field(init=False)

    def __post_init__(self) -> None:
        """Make pool and pairs, or find them made."""
        self.real = load_file(HERE / "real_features.safetensors")
        self.judge = ClipScorer(model=str(JUDGE))
        config = load("dde-nano", COMMON)
        self.pairs = pair(
            config.pair, scored_candidates(config, RunDir(self.root)), self.root / "pairs"
        )

    def measure(
        self, name: str, options: tuple[str, ...], prompts: str, seed: int
    ) -> dict[str, Any]:
        """Train, judge and measure one policy; read it back where it was measured before.

        Args:
            name: Of its folder.
            options: Overrides of the run.
            prompts: `VALIDATION` or `TEST`.
            seed: Of the training; prompts and image seeds are the same for all.

        Returns:
            Scores, win rates, beat ratios, drift and seconds.
        """
        kind = "validation" if prompts == VALIDATION else "test"
        folder = self.root / "policies" / f"{name.replace(' ', '-')}-s{seed}"
        row_file = folder / f"{kind}.json"
        if row_file.is_file():
            return dict(json.loads(row_file.read_text()))
        began = time.monotonic()
        config = load("dde-nano", (*COMMON, *options, prompts, f"train.seed={seed}"))
        train(config.train, self.pairs, folder)
        judged = self.root / kind
        report = folder / f"{kind}-report.json"
        evaluate(config.evaluate, {folder.name: folder}, judged, report)
        models = json.loads(report.read_text())["models"]
        row = {
            "scores": models[folder.name]["scores"],
            "base": models["base"]["scores"],
            "drift": self.drift(judged / folder.name, kind),
            "base_drift": self.drift(judged / "base", kind),
            "seconds": time.monotonic() - began,
        }
        write_json(row_file, row)
        print(name, seed, kind, _short(row), flush=True)
        return row

    def drift(self, pool: Path, split: str) -> float:
        """Frechet distance of images to drawn art of the same split, in the judge's features."""
        rows = Pool(pool).candidates(("candidate_id", "image")).to_pylist()
        images = [decode(row["image"]["bytes"], row["candidate_id"]) for row in rows]
        parts = [self.judge.features(images[i : i + 64]) for i in range(0, len(images), 64)]
        # The judge sees cosines, features of length 1: scaled so that the numbers read well.
        return frechet_distance(100 * torch.cat(parts).double(), 100 * self.real[split].double())


def win_rate(row: Row, scorer: str) -> float:
    """Win rate of a measured row."""
    return float(row["scores"][scorer]["win_rate"])


def main() -> None:
    """Run what is missing, then write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True, help="folder of the runs")
    root = parser.parse_args().output
    work = Comparison(root)
    search: dict[str, dict[str, Row]] = {}
    chosen: dict[str, str] = {}
    for name, scheme in SCHEMES.items():
        search[name] = {
            setting: work.measure(
                f"{name}-{setting.split('=')[1]}", (*scheme.options, setting), VALIDATION, 0
            )
            for setting in scheme.settings
        }
        chosen[name] = max(search[name], key=lambda s: win_rate(search[name][s], "nano_preference"))
    table = {
        name: [
            work.measure(
                f"{name}-{chosen[name].split('=')[1]}", (*scheme.options, chosen[name]), TEST, seed
            )
            for seed in SEEDS
        ]
        for name, scheme in SCHEMES.items()
    }
    bands = {
        name: [
            work.measure(f"band-{name}", (option, chosen["uniform"]), TEST, seed) for seed in SEEDS
        ]
        for name, option in BANDS.items()
    }
    write_json(
        HERE / "results.json",
        {"chosen": chosen, "search": search, "table": table, "bands": bands},
    )
    (HERE / "table.md").write_text(as_table(chosen, table), encoding="utf-8")
    draw_bands(bands, table["uniform"])
    draw_drift(search)


def as_table(chosen: dict[str, str], table: dict[str, list[Row]]) -> str:
    """The table of test results: mean and standard deviation over seeds."""
    base = next(iter(table.values()))[0]
    first, judged = (f"{base['base'][scorer]['mean']:.3f}" for scorer in SCORERS)
    lines = [
        "| scheme | setting | score | judge's score | beats base | judge: beats base | drift |",
        "|---|---|---|---|---|---|---|",
        f"| base | | {first} | {judged} | | | {base['base_drift']:.1f} |",
    ]
    for name, rows in table.items():
        cells = [name, chosen[name].removeprefix("train.")]
        for scorer in SCORERS:
            cells.append(_spread([row["scores"][scorer]["mean"] for row in rows], 3))
        for scorer in SCORERS:
            ratios = [100 * row["scores"][scorer]["beat_ratio"] for row in rows]
            cells.append(_spread(ratios, 1) + " %")
        cells.append(_spread([row["drift"] for row in rows], 1))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def draw_bands(bands: dict[str, list[Row]], uniform: list[Row]) -> None:
    """Gain of training on one tenth of the timesteps, by both scorers."""
    figure, axes = plt.subplots(figsize=(7, 3.6), layout="constrained")
    for scorer, colour in (("nano_preference", "#3f5bd4"), ("nano_judge", "#c2571a")):
        gains = [[_gain(row, scorer) for row in rows] for rows in bands.values()]
        means = [statistics.fmean(each) for each in gains]
        spread = [statistics.stdev(each) for each in gains]
        axes.errorbar(range(len(bands)), means, spread, fmt="o-", color=colour, label=scorer)
        level = statistics.fmean(_gain(row, scorer) for row in uniform)
        axes.axhline(level, color=colour, dashes=(4, 3), linewidth=1)
    axes.axhline(0, color="#666a73", linewidth=1)
    axes.set_xticks(range(len(bands)), list(bands), rotation=45)
    axes.set_xlabel("timesteps trained on (dashed: all of them)")
    axes.set_ylabel("mean score minus base")
    axes.legend(frameon=False, loc="lower right")
    figure.savefig(HERE / "bands.png", dpi=110)


def draw_drift(search: dict[str, dict[str, Row]]) -> None:
    """Judge score against drift, a line a scheme over its settings."""
    figure, axes = plt.subplots(figsize=(7, 4.4), layout="constrained")
    for name, rows in search.items():
        points = [(row["drift"], _gain(row, "nano_judge")) for row in rows.values()]
        axes.plot(*zip(*points, strict=True), "o-", markersize=4, label=name)
    base = next(iter(next(iter(search.values())).values()))
    axes.plot([base["base_drift"]], [0], "k*", markersize=11, label="base")
    axes.set_xlabel("Frechet distance to held-out drawn art (judge's features)")
    axes.set_ylabel("judge: mean score minus base")
    axes.legend(frameon=False, fontsize=8)
    figure.savefig(HERE / "drift.png", dpi=110)


def _gain(row: Row, scorer: str) -> float:
    return float(row["scores"][scorer]["mean"] - row["base"][scorer]["mean"])


def _spread(values: list[float], digits: int) -> str:
    return f"{statistics.fmean(values):.{digits}f} ± {statistics.stdev(values):.{digits}f}"


def _short(row: Row) -> str:
    rates = ", ".join(
        f"{name} {100 * each['win_rate']:.1f}%" for name, each in row["scores"].items()
    )
    return (
        f"{rates}, drift {row['drift']:.1f} (base {row['base_drift']:.1f}), {row['seconds']:.0f} s"
    )


if __name__ == "__main__":
    main()
