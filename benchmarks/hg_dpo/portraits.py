"""The portraits: captioned face crops, how they are split, and prompts that no picture owns.

A folder of pictures with `metadata.jsonl`, a line a picture: file_name, text, series. The split
follows a hash of the file's name, so that it depends neither on order nor on seed.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from itertools import combinations, product
from pathlib import Path
from random import Random

import numpy as np
import torch
from PIL import Image
from torch import Tensor

SIZE = 64
TRAIN, HELD_OUT = 1300, 300
# Plausible: any two of its values meet on so many train pictures. Not tied to a picture: at most so
# many train pictures have this very combination.
MEETINGS, OWNERS = 2, 2
SCORERS = ("preference", "judge")
PATTERN = re.compile(r"a portrait of a (\S+), (.+) background, (.+) hair, (.+) clothes")

Fields = tuple[str | None, ...]
"""Gender, background, hair, clothes; None: not named."""


def caption(fields: Fields) -> str:
    """The fields in words.

    >>> caption(("man", None, "dark", "red"))
    'a portrait of a man, dark hair, red clothes'
    """
    gender, *rest = fields
    named = zip(rest, ("background", "hair", "clothes"), strict=True)
    clauses = [f"{value} {noun}" for value, noun in named if value is not None]
    return ", ".join([f"a portrait of a {gender}", *clauses])


def parsed(text: str) -> Fields:
    """The fields of a full caption."""
    match = PATTERN.fullmatch(text)
    if match is None:
        raise ValueError(f"no caption of a portrait: {text!r}")
    return match.groups()


@dataclass(frozen=True)
class Portrait:
    """A picture of the folder and what its caption says."""

    file: Path
    series: str
    fields: Fields

    @property
    def caption(self) -> str:
        return caption(self.fields)

    def picture(self) -> Image.Image:
        """The face crop at 64 x 64."""
        with Image.open(self.file) as image:
            return image.convert("RGB").resize((SIZE, SIZE), Image.Resampling.LANCZOS)


class Portraits:
    """All portraits of a folder, in the order of the hashes of their names."""

    def __init__(self, folder: Path) -> None:
        lines = (folder / "metadata.jsonl").read_text(encoding="utf-8").splitlines()
        rows = sorted(map(json.loads, lines), key=lambda row: _hash(row["file_name"]))
        self.all = [
            Portrait(folder / row["file_name"], row["series"], parsed(row["text"])) for row in rows
        ]
        self.train = self.all[:TRAIN]
        self.held_out = self.all[TRAIN : TRAIN + HELD_OUT]
        self.validation = self.all[TRAIN + HELD_OUT :]

    def part(self, name: str) -> list[Portrait]:
        """A split, or the half of the train pictures that is one scorer's own."""
        if name in SCORERS:
            return self.train[SCORERS.index(name) :: 2]
        parts: list[Portrait] = getattr(self, name)
        return parts

    @cached_property
    def counts(self) -> list[Counter[str]]:
        """How often each value of each field occurs on train pictures."""
        return [Counter(each.fields[place] for each in self.train) for place in range(4)]

    @cached_property
    def values(self) -> list[list[str]]:
        """All values of each field, also those that no train picture has."""
        return [sorted({each.fields[place] for each in self.all}) for place in range(4)]

    def vocabulary(self) -> tuple[str, ...]:
        """All words of all captions, sorted, and the comma."""
        words = {word for each in self.all for word in each.caption.replace(",", " ,").split()}
        return tuple(sorted(words))

    def prompts(self, split: str) -> list[str]:
        """Prompts for judging: "validation" or "test", which share none.

        All combinations of values of which any two meet on `MEETINGS` train pictures, but which at
        most `OWNERS` of the 1,300 train pictures have (many: none). Ordered by a hash, they go to
        the two lists in turn.
        """
        place = ("validation", "test").index(split)
        return self._composed[place::2]

    @cached_property
    def _composed(self) -> list[str]:
        owners = Counter(each.fields for each in self.train)
        pairs = tuple(combinations(range(4), 2))
        met = Counter(
            (a, b, each.fields[a], each.fields[b]) for each in self.train for a, b in pairs
        )
        found = [
            caption(fields)
            for fields in product(*self.values)
            if owners[fields] <= OWNERS
            and all(met[a, b, fields[a], fields[b]] >= MEETINGS for a, b in pairs)
        ]
        return sorted(found, key=_hash)

    def teaching(self) -> list[Portrait]:
        """The train pictures whose captions are no prompts for judging."""
        judged = set(self._composed)
        return [each for each in self.train if each.caption not in judged]

    def changed(self, fields: Fields, rng: Random) -> Fields:
        """The fields with one that is named changed, to a value drawn by how often it occurs.

        Drawn evenly, a rare word alone would give the wrong caption away.
        """
        place = rng.choice([place for place, value in enumerate(fields) if value is not None])
        others = {name: n for name, n in self.counts[place].items() if name != fields[place]}
        new = rng.choices(list(others), list(others.values()))[0]
        return (*fields[:place], new, *fields[place + 1 :])

    def codes(self, fields: Iterable[Fields]) -> Tensor:
        """Fields as indices of their values, -1 where they are not named, (n, 4)."""
        rows = [
            [
                -1 if name is None else names.index(name)
                for name, names in zip(row, self.values, strict=True)
            ]
            for row in fields
        ]
        return torch.tensor(rows)

    def write(self, folder: Path) -> None:
        """Pictures for `tastemaker import images=...` and lists of prompts.

        `train/` holds the pictures of `teaching`, `held_out/` those held out, each with its
        metadata.jsonl; `prompts/` a text file each for train, validation and test.
        """
        for name, part in (("train", self.teaching()), ("held_out", self.held_out)):
            write_folder(part, folder / name)
        (folder / "prompts").mkdir(exist_ok=True)
        lists = {split: self.prompts(split) for split in ("validation", "test")}
        lists["train"] = list(dict.fromkeys(each.caption for each in self.teaching()))
        for name, texts in lists.items():
            text = "".join(f"{line}\n" for line in texts)
            (folder / "prompts" / f"{name}.txt").write_text(text, encoding="utf-8")


def write_folder(part: list[Portrait], folder: Path) -> None:
    """Pictures as PNG of 64 x 64 and their captions in metadata.jsonl."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    rows = []
    for each in part:
        name = f"images/{each.file.stem}.png"
        each.picture().save(folder / name)
        rows.append({"file_name": name, "text": each.caption, "series": each.series})
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "metadata.jsonl").write_text(lines, encoding="utf-8")


def pictures(part: list[Portrait]) -> Tensor:
    """Pictures as bytes, (n, 3, 64, 64)."""
    array = np.stack([np.asarray(each.picture()) for each in part])
    return torch.from_numpy(array).permute(0, 3, 1, 2).contiguous()


def unnamed(fields: Fields, rng: Random, share: float) -> Fields:
    """The fields with each clause left out by a chance; the gender stays."""
    return (fields[0], *(None if rng.random() < share else value for value in fields[1:]))


def _hash(text: str) -> bytes:
    return blake2b(text.encode(), digest_size=16).digest()
