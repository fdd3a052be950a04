"""The measured images as a table: written by compare.py, read by tables.py."""

import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from committed import Settings, commit, committed, grouped, settle
from figures import ATTRIBUTES, Images
from rows import ROWS, Size, settings

from tastemaker.storage.files import read_json
from tastemaker.storage.parquet import read_table, write_table

SCORES = Path(__file__).parent / "scores.parquet"
FEATURES = ("efficientnet", "judge_features")
PHOTOGRAPHS, OTHERS = "photographs", "other photographs"


@dataclass(frozen=True)
class Model:
    """A model and how it was drawn.

    Attributes:
        row: Its row, "base", or photographs.
        steps: Optimizer steps in all.
        rate: Learning rate.
        beta: Of the loss, 0 where it has none.
        seed: Of the training.
        guidance: Scale that it was drawn at.
        pool: Guidance of the candidates that it was trained on.
    """

    row: str
    steps: int = 0
    rate: float = 0.0
    beta: int = 0
    seed: int = 0
    guidance: float = 0.0
    pool: float = 0.0

    @property
    def name(self) -> str:
        """Name of its files."""
        row = "".join(each if each.isalnum() else "-" for each in self.row)
        trained = f"{row}-n{self.steps}-{self.rate:g}-b{self.beta}-s{self.seed}"
        return f"{trained}-g{self.guidance:g}-p{self.pool:g}"


class NotMeasured(LookupError):
    """A model that has no images yet."""


class Choices:
    """Settings and guidance of every row, chosen alike.

    Args:
        score: Returns the training scorer's mean of a model on validation prompts.
        size: What there is to choose from.
    """

    def __init__(self, score: Callable[[Model], float], size: Size) -> None:
        self.score, self.size = cache(score), size

    @cached_property
    def base(self) -> Model:
        """The base at its best guidance, at which candidates are drawn and settings compared."""
        return max((Model("base", guidance=scale) for scale in self.size.scales), key=self.score)

    def setting(self, row: str) -> tuple[float, int]:
        """Learning rate and beta of a row, searched at the second length with the first seed."""
        if (like := ROWS[row].like) is not None:
            return self.setting(like)
        at = self.size.lengths[1]
        return max(
            settings(ROWS[row], self.size),
            key=lambda setting: self.score(self.model(row, at, setting, self.base.guidance)),
        )

    def chosen(self, row: str, steps: int, seed: int = 0) -> Model:
        """A row's model with its setting, at the guidance that is best with the first seed."""
        models = [self.model(row, steps, self.setting(row), s) for s in self.size.scales]
        return replace(max(models, key=self.score), seed=seed)

    def model(self, row: str, steps: int, setting: tuple[float, int], guidance: float) -> Model:
        """A row's model of the first seed, trained on candidates of the base's best guidance."""
        return Model(row, steps, *setting, 0, guidance, self.base.guidance)


def write(file: Path, model: Model, part: str, columns: dict[str, list[Any]]) -> None:
    """Write a model's images, with their features only in the part "test"."""
    number = len(columns["caption"])
    about = {"part": part, **asdict(model)}
    table = pa.table({name: [value] * number for name, value in about.items()})
    for name, values in columns.items():
        half = pa.list_(pa.float16())
        data = pa.array(values, half) if name in FEATURES else pa.array(values)
        if part == "test" or name not in FEATURES:
            table = table.append_column(name, data)
    write_table(file, table)


def gather(folder: Path) -> pa.Table:
    """Join the tables of all models in a folder, searches first."""
    files = sorted(folder.glob("validation-*.parquet")) + sorted(folder.glob("test-*.parquet"))
    return pa.concat_tables([read_table(file) for file in files], promote_options="default")


def keep(runs: Path, file: Path) -> None:
    """Gather a comparison's images in one table."""
    commit(file, gather(runs / "measured"), read_json(runs / "settings.json"))


def go_on(runs: Path, file: Path, current: Settings) -> None:
    """Write what `keep` gathered of these settings as the files of a comparison."""
    settle(runs, current)
    table = committed(file, current)
    names = ["part", *(field.name for field in fields(Model))]
    for (part, *model), images in ({} if table is None else grouped(table, names)).items():
        file = runs / "measured" / f"{part}-{Model(*model).name}.parquet"
        if not file.is_file():
            # None but those of the test part have features.
            empty = [name for name in images.column_names if images[name].null_count == len(images)]
            write_table(file, images.drop_columns(empty))


class Results:
    """What was measured.

    Args:
        table: A row per image.
    """

    def __init__(self, table: pa.Table) -> None:
        self.table = table
        self._kept: dict[Model, Images] = {}

    def _rows(self, part: str, model: Model) -> pa.Table:
        wanted = {"part": part, **asdict(model)}
        mask = None
        for key, value in wanted.items():
            same = pc.equal(self.table[key], value)
            mask = same if mask is None else pc.and_(mask, same)
        return self.table.filter(mask)

    def score(self, model: Model) -> float:
        """The training scorer's mean on validation prompts, by which everything is chosen.

        Raises:
            NotMeasured: It was not drawn for them yet.
        """
        rows = self._rows("validation", model)
        if not len(rows):
            raise NotMeasured(model)
        return float(pc.mean(rows["preference"]).as_py())

    def images(self, model: Model) -> Images:
        """A model's images of the held-out captions.

        Raises:
            NotMeasured: It was not drawn for them yet.
        """
        if model not in self._kept:
            rows = self._rows("test", model)
            if not len(rows):
                raise NotMeasured(model)
            drawn = self._columns(rows)
            real = self._columns(self._rows("test", Model(PHOTOGRAPHS)))
            # Of other photographs there is not one for every caption.
            places = drawn["photograph"]
            features = {
                name: torch.tensor([real[name][place] for place in places], dtype=torch.float64)
                for name in FEATURES
            }
            self._kept[model] = Images(drawn, features)
        return self._kept[model]

    @staticmethod
    def _columns(rows: pa.Table) -> dict[str, list[Any]]:
        names = ("photograph", "caption", "preference", "judge", "plain", "face", *ATTRIBUTES)
        return {name: rows[name].to_pylist() for name in (*names, "sharpness", "hue", *FEATURES)}
