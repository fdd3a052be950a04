"""Nuisances, and a viewer's count, against the four scorers of nano.

Draws two pictures of the base for each of 192 test prompts, changes them, and scores all: every
score goes to `scores.parquet`, and `--tables` prints the tables of README.md from it. `sheet.png`
has 100 pictures as the base of that day drew them, and `counted.json` what a viewer saw in each,
shuffled and without prompts (null: not to be recognised). Takes about four minutes on one core.
"""

import argparse
import json
from itertools import combinations
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image

from tastemaker.core.registry import SCORERS
from tastemaker.metrics.win_rate import WinRate, win_rate
from tastemaker.nano import MODEL
from tastemaker.nano.build.generated import FASTER
from tastemaker.nano.build.pipeline import GUIDANCE, draw
from tastemaker.nano.build.scorers import CHANGES, WEAKER
from tastemaker.nano.captions import parse, prompts
from tastemaker.storage.parquet import read_table, write_table

HERE = Path(__file__).parent
SCORES = HERE / "scores.parquet"
NETWORKS = ("nano_checker", "nano_examiner")
NAMES = ("nano_preference", "nano_judge", *NETWORKS)
ATTRIBUTES = ("concept", "count", "place")
NUMBER, IMAGES, COUNTED, SIDE, COLUMNS = 192, 2, 100, 64, 10
UNCHANGED = "unchanged"

Columns = dict[str, list[Any]]


def scored() -> pa.Table:
    """Draw and score: a row per picture and change, a column per scorer, in the order of seeds."""
    asked = [prompt for prompt in prompts("test", NUMBER) for _ in range(IMAGES)]
    seeds = list(range(len(asked)))
    pipe = StableDiffusionPipeline.from_pretrained(MODEL, dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    base, weaker = (draw(pipe, asked, seeds, each, FASTER) for each in (GUIDANCE, WEAKER))
    scorers = {name: SCORERS.bind(name, {})() for name in NAMES}
    scorers |= {f"{name} obeyed": SCORERS.bind(name, {"obeyed": True})() for name in NETWORKS}
    found: Columns = {name: [] for name in ("pictures", "prompt", "seed", *scorers)}
    for title, change in ((UNCHANGED, Image.Image.copy), *CHANGES.items()):
        pictures = [change(each) for each in base] if change else weaker
        found["pictures"] += [title] * len(asked)
        found["prompt"] += asked
        found["seed"] += seeds
        for name, scorer in scorers.items():
            found[name] += scorer(pictures, asked).tolist()
    return pa.table(found)


def by_pictures(scores: pa.Table) -> dict[str, Columns]:
    """Columns of every change of the pictures."""
    titles = dict.fromkeys(scores["pictures"].to_pylist())
    return {
        title: scores.filter(pc.equal(scores["pictures"], title)).to_pydict() for title in titles
    }


def nuisances(scores: pa.Table) -> list[str]:
    """Rows of how often each change beats the unchanged picture."""
    rows = [f"| pictures | {' | '.join(NAMES)} |", "|---" * (1 + len(NAMES)) + "|"]
    parts = by_pictures(scores)
    base = parts.pop(UNCHANGED)
    for title, part in parts.items():
        rates = [win_rate(part[name], base[name], base["prompt"]) for name in NAMES]
        rows.append(f"| {title} | {' | '.join(map(percent, rates))} |")
    return rows


def percent(rate: WinRate) -> str:
    """A rate and its interval in per cent."""
    return f"{100 * rate.value:.1f} [{100 * rate.low:.1f}, {100 * rate.high:.1f}]"


def obeyed(scores: pa.Table) -> list[str]:
    """Rows of the share of pictures that each network finds to obey."""
    rows = [f"| pictures | {' | '.join(NETWORKS)} |", "|---|---|---|"]
    for title, part in by_pictures(scores).items():
        shares = [part[f"{name} obeyed"] for name in NETWORKS]
        cells = [f"{100 * sum(share) / len(share):.1f} %" for share in shares]
        rows.append(f"| {title} | {' | '.join(cells)} |")
    return rows


def agreement(scores: pa.Table) -> list[str]:
    """Rows of the share of prompts of whose two pictures both scorers prefer the same."""
    base = by_pictures(scores)[UNCHANGED]
    first = {name: [a > b for a, b in zip(*_pair(base[name]), strict=True)] for name in NAMES}
    rows = ["| scorers | agree |", "|---|---|"]
    for one, other in combinations(NAMES, 2):
        same = [a == b for a, b in zip(first[one], first[other], strict=True)]
        rows.append(f"| {one}, {other} | {100 * sum(same) / len(same):.0f} % |")
    return rows


def _pair(values: list[float]) -> tuple[list[float], list[float]]:
    return values[::2], values[1::2]


def sheet() -> list[Image.Image]:
    """The pictures that were counted."""
    whole = Image.open(HERE / "sheet.png").convert("RGB")
    corners = [(n % COLUMNS * SIDE, n // COLUMNS * SIDE) for n in range(COUNTED)]
    return [whole.crop((x, y, x + SIDE, y + SIDE)) for x, y in corners]


def viewed(text: str | None, prompt: str) -> dict[str, bool | None]:
    """Return whether what a viewer saw is what the prompt asks; None where that cannot be said."""
    asked, seen = parse(prompt), parse(text) if text else None
    same = seen is not None and set(asked.concepts) == set(seen.concepts)
    if seen is None or not same:
        return {"concept": False, "count": None, "place": None}
    turned = {"left": "right", "right": "left", "above": "below", "below": "above", "": ""}
    relation = seen.relation if seen.concepts == asked.concepts else turned[seen.relation]
    place = relation == asked.relation and seen.position == asked.position
    named = asked.relation or asked.position
    return {"concept": True, "count": seen.count == asked.count, "place": place if named else None}


def confusion(asked: list[str]) -> list[str]:
    """Rows of what a viewer and each network say of the pictures that were counted."""
    counted = json.loads((HERE / "counted.json").read_text(encoding="utf-8"))
    views = [viewed(text, prompt) for text, prompt in zip(counted, asked, strict=True)]
    rows = ["| attribute | network | both yes | viewer alone | network alone | both no |"]
    rows += ["|---|---|---|---|---|---|"]
    for attribute in ATTRIBUTES:
        for name in NETWORKS:
            scorer = SCORERS.bind(name, {"obeyed": True, "attribute": attribute})()
            seen = scorer(sheet(), asked).bool().tolist()
            pairs = [(view[attribute], each) for view, each in zip(views, seen, strict=True)]
            cells = [
                str(pairs.count((viewer, network)))
                for viewer in (True, False)
                for network in (True, False)
            ]
            rows.append(f"| {attribute} | {name} | {' | '.join(cells)} |")
    return rows


def tables(scores: pa.Table) -> str:
    """The tables of README.md."""
    parts = nuisances(scores), agreement(scores), obeyed(scores)
    return "\n\n".join("\n".join(rows) for rows in parts)


def main() -> None:
    """Measure, or print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tables", action="store_true", help="print the tables of scores.parquet")
    if not parser.parse_args().tables:
        torch.set_num_threads(1)
        write_table(SCORES, scored())
    counted = prompts("test", COUNTED)
    print("\n\n".join([tables(read_table(SCORES)), "\n".join(confusion(counted))]))


if __name__ == "__main__":
    main()
