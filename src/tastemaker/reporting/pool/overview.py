"""Overview of a pool or of pairs: counts, scores and the images of the contact sheet."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from tastemaker.core.errors import TastemakerError
from tastemaker.reporting.images import Thumbnail, thumbnails
from tastemaker.storage.files import read_record
from tastemaker.storage.pairs import PairSet
from tastemaker.storage.parquet import read_table
from tastemaker.storage.pool import Pool

MOST_KINDS = 5
"""Models or sizes that are listed; rarer ones are summed."""

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Card:
    """One field of the contact sheet.

    Args:
        title: The prompt.
        note: Scores or margin.
        images: By their name; None where an image is gone.
    """

    title: str
    note: str
    images: dict[str, Thumbnail | None]


@dataclass
class Overview:
    """Counts, scores and sample images of a pool or of pairs.

    Args:
        name: Name of the folder.
        facts: Counts by label, in order.
        scores: Series of each histogram by name: all images, or chosen and rejected.
        cards: The contact sheet.
    """

    name: str
    facts: dict[str, str] = field(default_factory=dict)
    scores: dict[str, dict[str, Array]] = field(default_factory=dict)
    cards: list[Card] = field(default_factory=list)


def read(folder: Path, images: int) -> Overview:
    """Read a folder, with one shard of images in memory.

    Args:
        folder: Folder of a pool, or of pairs.
        images: Cards of the contact sheet, spread evenly.

    Returns:
        Its overview.

    Raises:
        TastemakerError: The folder holds neither, or a file in it is torn.
    """
    if PairSet(folder).file.is_file():
        return _pairs(PairSet(folder), images)
    return _pool(Pool(folder), images)


def _pool(pool: Pool, images: int) -> Overview:
    kinds: dict[str, Counter[str]] = {"Sources": Counter(), "Models": Counter(), "Sizes": Counter()}
    prompts: Counter[str] = Counter()
    for shard in pool.shards():
        rows = read_table(shard, ("prompt_id", "source", "model", "image"))
        prompts.update(rows["prompt_id"].to_pylist())
        kinds["Sources"].update(rows["source"].to_pylist())
        kinds["Models"].update(name for name in rows["model"].to_pylist() if name)
        kinds["Sizes"].update(_size(each["bytes"]) for each in rows["image"].to_pylist())
    scorers = pool.scorers()
    table = pool.scores()
    scores = {name: _column(table[name]) for name in scorers}
    few, many = min(prompts.values()), max(prompts.values())
    facts = {
        "Images": str(table.num_rows),
        "Prompts": str(len(prompts)),
        "Images per prompt": str(few) if few == many else f"{few} to {many}",
        **{label: _most(counts) for label, counts in kinds.items() if counts},
        **_dropped(pool.folder),
    }
    chosen = table.take(_spread(table.num_rows, images)).to_pylist()
    found = thumbnails([pool], {row["candidate_id"] for row in chosen})
    cards = [
        Card(
            row["prompt"],
            ", ".join(f"{name} {row[name]:.3g}" for name in scorers if row[name] is not None),
            {row["source"]: found.get(row["candidate_id"])},
        )
        for row in chosen
    ]
    return Overview(
        pool.folder.name, facts, {name: {"all": _scored(scores[name])} for name in scorers}, cards
    )


def _pairs(pairs: PairSet, images: int) -> Overview:
    table = pairs.table()
    margins = _column(table["margin"])
    facts = {
        "Pairs": str(table.num_rows),
        "Prompts": str(len(set(table["prompt"].to_pylist()))),
        "Images": str(len({*table["chosen_id"].to_pylist(), *table["rejected_id"].to_pylist()})),
        "Rules": _most(Counter(table["rule"].to_pylist())),
        "Pools": ", ".join(pool.folder.name for pool in pairs.pools()),
        **_dropped(pairs.folder),
    }
    widest = np.argsort(-margins, kind="stable")
    rows = table.take(widest[_spread(table.num_rows, images)]).to_pylist()
    names = ("chosen", "rejected")
    wanted = {row[f"{name}_id"] for row in rows for name in names}
    found = thumbnails(pairs.pools(), wanted)
    cards = [
        Card(
            row["prompt"],
            f"margin {row['margin']:.4g}",
            {name: found.get(row[f"{name}_id"]) for name in names},
        )
        for row in rows
    ]
    scores = {"margin": {"all": margins}, **_sides(pairs.pools(), table)}
    return Overview(pairs.folder.name, facts, scores, cards)


def _sides(pools: Sequence[Pool], table: Any) -> dict[str, dict[str, Array]]:
    """Scores of the chosen and of the rejected images, by each scorer of all pools."""
    tables = [pool.scores() for pool in pools]
    shared = [
        name for name in pools[0].scorers() if all(name in held.column_names for held in tables)
    ]
    sides: dict[str, dict[str, Array]] = {}
    for scorer in shared:
        score = {
            name: value
            for held in tables
            for name, value in zip(
                held["candidate_id"].to_pylist(), held[scorer].to_pylist(), strict=True
            )
            if value is not None
        }
        sides[scorer] = {
            side: np.array(
                [score[each] for each in table[f"{side}_id"].to_pylist() if each in score]
            )
            for side in ("chosen", "rejected")
        }
    return sides


def _dropped(folder: Path) -> dict[str, str]:
    """Items that the command of this folder skipped, with their reasons."""
    done = folder / "done.json"
    held: Mapping[str, Any] = read_record(done) if done.is_file() else {}
    dropped = "; ".join(f"{number}: {why}" for why, number in held.get("dropped", {}).items())
    left = held.get("left_out")
    return {
        **({"Dropped": dropped} if dropped else {}),
        **({"Left out": f"{left}, see {folder / 'left_out.jsonl'}"} if left else {}),
    }


def _size(encoded: bytes) -> str:
    try:
        with Image.open(io.BytesIO(encoded)) as image:
            return f"{image.width} x {image.height}"
    except (UnidentifiedImageError, OSError) as error:
        raise TastemakerError(f"an image of the pool cannot be read: {error}") from None


def _most(counts: Counter[str]) -> str:
    named = counts.most_common(MOST_KINDS)
    rest = counts.total() - sum(number for _, number in named)
    more: Iterator[str] = iter([f"others: {rest}"] if rest else [])
    return ", ".join([*(f"{name}: {number}" for name, number in named), *more])


def _column(column: Any) -> Array:
    return np.asarray(column.to_numpy(), dtype=np.float64)


def _scored(scores: Array) -> Array:
    """Leave out the candidates without a score."""
    return scores[np.isfinite(scores)]


def _spread(total: int, number: int) -> npt.NDArray[np.int64]:
    """Indices spread evenly over `total`, the first and the last among them."""
    return np.unique(np.linspace(0, total - 1, min(number, total)).round().astype(np.int64))
