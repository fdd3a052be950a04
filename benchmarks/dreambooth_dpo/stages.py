"""One subject of the comparison: its personalised models and everything that is made with them."""

import json
import time
from collections.abc import Callable
from functools import cached_property, partial
from pathlib import Path

import pyarrow as pa
from measures import Measures
from PIL import Image
from rules import PERSONALISED, ROWS, slug
from subjects import FOLDER
from tables import best_guidance

from tastemaker.config.loading import load
from tastemaker.config.runs import PersonalRun
from tastemaker.config.sections import AdapterConfig, ScoreConfig
from tastemaker.evaluation.score import score
from tastemaker.pairing.pair import pair
from tastemaker.sampling.generate import generate
from tastemaker.storage.files import read_json, write_json
from tastemaker.storage.images import decode
from tastemaker.storage.parquet import read_table, write_table
from tastemaker.storage.pool import Pool
from tastemaker.training.personalization.personalize import personalize
from tastemaker.training.preference.train import train

VALIDATION = Path(__file__).parent / "validation.txt"
RUN = "dreambooth_dpo-nano"
GUIDANCE = (1.0, 1.5, 2.0, 3.0)
STEPS = 48
"""Optimizer steps of a row's training, in all its rounds together."""
LAYERS = ["to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2", "conv1", "conv2"]
SETTINGS = (
    "personalize.batch_size=6",
    "personalize.learning_rate=5e-4",
    "personalize.lr_scheduler=cosine",
    f"personalize.lora={json.dumps({'r': 16, 'target_modules': LAYERS})}",
    "train.report_to=null",
)
SMALL = (
    "personalize.max_steps=2",
    "generate.num_candidates=4",
    "generate.num_inference_steps=2",
    "train.max_steps=1",
    "evaluate.prompts.part=1",
    "evaluate.prompts.of=12",
)
"""For a trial of the machinery, with these rows:"""
SMALL_ROWS = (PERSONALISED, *list(ROWS)[3:4], "angle 20 to 70, two rounds, half the images")


class Subject:
    """One subject: its personalised models and everything made with them.

    Args:
        root: Folder of all runs.
        name: The subject, whose name is its class's.
        small: Steps and prompts of a trial.
    """

    def __init__(self, root: Path, name: str, small: bool = False) -> None:
        self.name, self.small, self.folder = name, small, root / name
        self.guidance = GUIDANCE[:2] if small else GUIDANCE

    def config(self, *overrides: str) -> PersonalRun:
        """Load the shipped run with this subject."""
        named = (
            f"personalize.photographs={FOLDER / self.name}",
            f"personalize.class_name={self.name}",
        )
        small = SMALL if self.small else ()
        config = load(RUN, (*SETTINGS, *named, *overrides, *small))
        assert isinstance(config, PersonalRun)
        return config

    @cached_property
    def class_images(self) -> Path:
        """The class as the base draws it in the prompts of training."""
        config = self.config(f"generate.prompts.subject={self.name}", "generate.num_candidates=1")
        return self.timed("class_images", partial(generate, config.generate))

    @cached_property
    def measures(self) -> Measures:
        """What scores this subject's images."""
        return Measures(self.name, [image for image, _, _ in images(self.class_images)])

    def personalised(self, steps: int) -> Path:
        """Personalise for so many steps; 0 steps: the base."""
        if not steps:
            return Path("nano")
        prior = f"personalize.prior={json.dumps({'pool': str(self.class_images)})}"
        config = self.config(f"personalize.max_steps={steps}", prior).personalize
        return self.timed(f"personalised-{steps}", partial(personalize, config))

    def model(self, name: str) -> Path:
        """Train a row's model; rounds have prompts of their own, and the model before."""
        row = ROWS[name]
        model, before = self.personalised(row.steps), f"{row.images}-images"
        if row.rule is None:
            return model
        for number in range(1, row.rounds + 1):
            config = self.config(
                f"rounds={row.rounds}",
                f"generate.num_candidates={row.images}",
                f"pair.rule={json.dumps(dict(row.rule))}",
                f"train.max_steps={STEPS // row.rounds}",
            )
            own = {"model": str(model), "prompts": config.round_prompts(number)}
            drawing = config.generate.model_copy(update=own)
            # All rows' first rounds of equal size draw the same images: one pool for them.
            stage, key = f"{before}-round-{number}-of-{row.rounds}", f"{slug(name)}-{number}"
            pool = self.timed(stage, partial(generate, drawing))
            self.timed(f"{stage}-scores", partial(_scored, config.score, pool))
            pairs = pair(config.pair, pool, self.folder / f"{key}-pairs")
            training = config.train.model_copy(update={"model": str(model)})
            model = self.timed(key, partial(train, training, pairs))
            before = key
        return model

    def seconds(self, name: str) -> float:
        """Add up what a row cost beyond the model that was personalised."""
        row = ROWS[name]
        stages, before = [], f"{row.images}-images"
        for number in range(1, row.rounds + 1) if row.rule else ():
            stage = f"{before}-round-{number}-of-{row.rounds}"
            before = f"{slug(name)}-{number}"
            stages += [stage, f"{stage}-scores", before]
        return sum(self.spent(stage) for stage in stages)

    def spent(self, stage: str) -> float:
        """Return the CPU seconds of a stage, those of a killed attempt apart."""
        return float(read_json(self.folder / "seconds" / f"{stage}.json")["seconds"])

    def timed(self, stage: str, work: Callable[[Path], Path]) -> Path:
        """Do a stage and keep its CPU seconds, of a finished one those that it took."""
        file, began = self.folder / "seconds" / f"{stage}.json", time.process_time()
        result = work(self.folder / stage)
        if not file.is_file():
            write_json(file, {"seconds": time.process_time() - began})
        return result

    def file(self, name: str) -> Path:
        """Place of a row's scores; beside it is what it cost."""
        return self.folder / "measured" / f"{slug(name)}.parquet"

    def measured(self, name: str) -> None:
        """Train, draw and score a row, unless it is there."""
        file = self.file(name)
        if file.is_file():
            return
        model = self.model(name)
        tables = [self.scores(name, model, scale, "validation") for scale in self.guidance]
        chosen = best_guidance(pa.concat_tables([*tables, self.reference(tables)]), self.name, name)
        tables.append(self.scores(name, model, chosen, "test"))
        cost = {"subject": self.name, "row": name, "seconds": self.seconds(name)}
        write_json(file.with_suffix(".json"), {**cost, "pairs": self.pairs(name)})
        write_table(file, pa.concat_tables(tables))
        print(f"{self.name:<10} {name:<44} guidance {chosen}", flush=True)

    def reference(self, tables: list[pa.Table]) -> pa.Table:
        """Read the personalised model's rows, whose spread is the unit of the choice."""
        file = self.file(PERSONALISED)
        return read_table(file) if file.is_file() else tables[0].slice(0, 0)

    def pairs(self, name: str) -> int:
        """Count the pairs of a row's rounds."""
        row = ROWS[name]
        folders = (self.folder / f"{slug(name)}-{n}-pairs" for n in range(1, row.rounds + 1))
        return sum(read_json(each / "done.json")["pairs"] for each in folders) if row.rule else 0

    def scores(self, name: str, model: Path, scale: float, part: str) -> pa.Table:
        """Draw a row's images at one guidance and score each."""
        config = self.config()
        prompts = config.evaluate.prompts
        if part == "validation":
            prompts = prompts.model_copy(update={"set": str(VALIDATION)})
        own = {
            "model": str(model),
            "prompts": prompts,
            "guidance_scale": scale,
            "num_candidates": 1 if part == "validation" or self.small else 3,
            "seed": 1000,
            "keep_latents": False,
            "adapter": AdapterConfig(scale=ROWS[name].scale),
        }
        folder = self.folder / part / f"{slug(name)}-{scale}"
        drawn = images(generate(config.generate.model_copy(update=own), folder))
        pictures, asked, seeds = (list(each) for each in zip(*drawn, strict=True))
        keys = {"subject": self.name, "row": name, "part": part, "guidance": scale}
        columns = {key: [value] * len(drawn) for key, value in keys.items()}
        found = self.measures(pictures, asked)
        values = {column: pa.array(each, pa.float32()) for column, each in found.items()}
        return pa.table({**columns, "prompt": asked, "seed": seeds, **values})


def _scored(section: ScoreConfig, pool: Path, _: Path) -> Path:
    return score(section, pool)


def images(pool: Path) -> list[tuple[Image.Image, str, int]]:
    """Read a pool's images with their prompts and seeds."""
    rows = Pool(pool).candidates(("candidate_id", "prompt", "seed", "image")).to_pylist()
    return [
        (decode(row["image"]["bytes"], row["candidate_id"]), row["prompt"], row["seed"])
        for row in rows
    ]
