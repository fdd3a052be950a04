"""DreamBoothDPO's comparison on the embedded model: pair rules, images a prompt, steps.

    python benchmarks/dreambooth_dpo/compare.py --output runs/dreambooth_dpo

Resumable: killed and started again it goes on. Writes results.json, table.md, characters.md,
agreement.md, plane.png, clouds.png and faces.png beside this file. With `--subjects` it works on
some characters alone and writes no results, so that several processes can share the work.

Four characters in a style of drawing that the base was never taught, five pictures each, large and
on five backgrounds. For each character and each of two seeds (one for side rows): personalise once,
draw candidates for 48 prompts, choose pairs by every rule of `rules.py`, train with the same
constants, judge on 24 other prompts, by the scorers that chose and by the judge that training never
saw.
"""

import argparse
import json
import time
from functools import cached_property
from pathlib import Path
from typing import Any

from agreement import POOL, key_of
from drawings import write_results
from rules import JUDGE, ROWS, Row

from tastemaker.config.loading import load
from tastemaker.config.runs import PersonalRun
from tastemaker.evaluation.evaluate import evaluate
from tastemaker.evaluation.score import score
from tastemaker.pairing.pair import pair
from tastemaker.sampling.generate import generate
from tastemaker.storage.files import read_json, write_json
from tastemaker.training.personalization.personalize import personalize
from tastemaker.training.preference.train import train

HERE = Path(__file__).parent
SUBJECTS = ("frog", "panda", "rocket", "butterfly")
SEEDS = (0, 1)
STEPS = 48
"""Optimizer steps of a row, in all its rounds together."""


class Subject:
    """One character with one seed: its personalised model and everything made with it.

    Args:
        root: Folder of all runs.
        name: The character.
        seed: Of personalisation, candidates and training.
    """

    def __init__(self, root: Path, name: str, seed: int) -> None:
        self.name, self.seed = name, seed
        self.folder = root / f"{name}-s{seed}"

    def config(self, *overrides: str) -> PersonalRun:
        """The shipped run with this character and seed."""
        config = load(
            "dreambooth_dpo-nano",
            (
                f"seed={self.seed}",
                f"personalize.photographs=nano_{self.name}",
                f"personalize.class_name={self.name}",
                f"evaluate.seed={1000 + self.seed}",
                "train.report_to=null",
                *overrides,
            ),
        )
        assert isinstance(config, PersonalRun)
        return config

    @cached_property
    def personalised(self) -> Path:
        """The personalised model: where all rows begin, and what they are held against."""
        return personalize(self.config().personalize, self.folder / "personalised")

    def policy(self, key: str, row: Row) -> Path:
        """Train a row's model; rounds have prompts of their own, and the model before."""
        model, before = self.personalised, f"{row.images}-images"
        for number in range(1, row.steps + 1):
            config = self.config(
                f"rounds={row.steps}",
                f"generate.num_candidates={row.images}",
                f"pair.rule={json.dumps(dict(row.rule))}",
                f"train.max_steps={STEPS // row.steps}",
            )
            own = {"model": str(model), "prompts": config.round_prompts(number)}
            # All rows' first rounds of equal size draw the same images: one pool for them.
            place = self.folder / "pools" / f"{before}-round-{number}-of-{row.steps}"
            pool = score(config.score, generate(config.generate.model_copy(update=own), place))
            pairs = pair(config.pair, pool, self.folder / "pairs" / f"{key}-{number}")
            training = config.train.model_copy(update={"model": str(model)})
            model = train(training, pairs, self.folder / "policies" / f"{key}-{number}")
            before = f"{key}-{number}"
        return model

    def measured(self, name: str) -> dict[str, Any]:
        """Train and judge a row, or read it back."""
        key = key_of(name)
        file = self.folder / "measured" / f"{key}.json"
        if not file.is_file():
            began = time.monotonic()
            policy = self.policy(key, ROWS[name])
            section = self.config().evaluate.model_copy(update={"base": str(self.personalised)})
            report = self.folder / "reports" / f"{key}.json"
            evaluate(section, {key: policy}, self.folder / "judged", report)
            models = read_json(report)["models"]
            pairs = read_json(self.folder / "pairs" / f"{key}-1" / "done.json")
            row = {
                "model": models[key]["scores"],
                "base": models["base"]["scores"],
                "pairs": pairs["pairs"],
                "dropped": pairs["dropped"],
                "pool": key,
                "seconds": time.monotonic() - began,
            }
            write_json(file, row)
            print(f"{self.folder.name:<14} {name:<28} {_short(row)}", flush=True)
        return dict(read_json(file))

    def before(self) -> dict[str, Any]:
        """Scores of the model that was personalised, on the same prompts and seeds."""
        section = self.config().evaluate.model_copy(update={"base": "nano"})
        report = self.folder / "reports" / "before.json"
        models = {"personalised": self.personalised}
        evaluate(section, models, self.folder / "judged-before", report)
        return dict(read_json(report)["models"]["base"]["scores"])

    def show_to_judge(self) -> None:
        """Let the judge score the pool that most rows choose from; no rule sees it."""
        config = self.config()
        scorers = tuple(each for each in config.evaluate.scorers if each.column in JUDGE)
        section = config.score.model_copy(update={"scorers": scorers})
        score(section, self.folder / "pools" / POOL)


def main() -> None:
    """Run what is missing, then write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--subjects", nargs="+", choices=SUBJECTS, help="only these characters")
    options = parser.parse_args()
    root, names = options.output, options.subjects or SUBJECTS
    subjects = [Subject(root, name, seed) for seed in SEEDS for name in names]
    results = {
        subject.folder.name: {
            name: subject.measured(name) for name, row in ROWS.items() if subject.seed < row.seeds
        }
        for subject in subjects
    }
    before = {subject.name: subject.before() for subject in subjects if subject.seed == 0}
    if options.subjects:
        return
    for subject in subjects:
        if subject.seed == 0:
            subject.show_to_judge()
    write_json(HERE / "results.json", {"rows": results, "before": before})
    write_results(HERE, root, results, before)


def _short(row: dict[str, Any]) -> str:
    gains = (
        f"{name} {row['model'][name]['mean'] - row['base'][name]['mean']:+.4f}"
        for name in row["model"]
    )
    return f"{row['pairs']} pairs, " + ", ".join(gains)


if __name__ == "__main__":
    main()
