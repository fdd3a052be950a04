"""Sources of a study: a pool, models' pools of equal prompts, folders of images, or pairs."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tastemaker.core.content_hash import file_content
from tastemaker.core.errors import TastemakerError
from tastemaker.core.reading import read_text
from tastemaker.datasets.listing import SUFFIXES
from tastemaker.storage.artifact import DONE_FILE, finished_key
from tastemaker.storage.candidates import item_of
from tastemaker.storage.files import config_key, printable
from tastemaker.storage.pairs import PairSet
from tastemaker.storage.parquet import read_table
from tastemaker.storage.pool import Pool
from tastemaker.studio.items import Group, Items
from tastemaker.studio.png_prompts import LONGEST, prompt_of
from tastemaker.studio.readers import FolderReader, PoolReader
from tastemaker.studio.units import Shape

_COLUMNS = ("candidate_id", "prompt_id", "prompt", "seed", "source", "source_id")


class Row(NamedTuple):
    """An image of a source.

    Attributes:
        candidate_id: Its id.
        item: Equal for images that compete.
        prompt: Text; "" where none is known.
        order: Position among those that compete: the seed, or a running number.
        place: Its number in the source.
    """

    candidate_id: str
    item: str
    prompt: str
    order: int
    place: int


def kind_of(source: Path) -> str:
    """Return the kind of a source: "pairs", "pool" or "images".

    Raises:
        TastemakerError: It is not a folder.
    """
    if not source.is_dir():
        raise TastemakerError(
            f"{source} is not a folder; name a pool, pairs, or a folder of images."
        )
    if PairSet(source).file.is_file():
        return "pairs"
    return "pool" if any(source.glob("candidates-*.parquet")) else "images"


def read_sources(sources: Sequence[Path], labels: Sequence[str] = ()) -> Items:
    """Index the images of a study.

    Args:
        sources: One source, or one per model: pools or folders with equal prompts.
        labels: A name per model; default: the folders' names.

    Returns:
        The images in groups that compete.

    Raises:
        TastemakerError: A source is missing, torn or unfinished, or models' prompts differ.
    """
    kinds = [kind_of(source) for source in sources]
    if len(sources) == 1:
        items = Items(("",))
        if kinds == ["pairs"]:
            items.groups = list(_pairs(items, PairSet(sources[0])))
        else:
            _add_source(items, sources[0], kinds[0])
        return items
    if "pairs" in kinds:
        raise TastemakerError(
            f"{sources[kinds.index('pairs')]} is a folder of pairs, which are judged by themselves;"
            " name it alone, or several pools."
        )
    items = Items(tuple(labels) or default_labels(sources))
    if len(set(items.labels)) != len(sources):
        raise TastemakerError(
            f"labels={list(items.labels)} do not name {len(sources)} sources apart; give one each."
        )
    _add_models(items, sources, kinds)
    return items


def default_labels(sources: Sequence[Path]) -> tuple[str, ...]:
    """Name folders by as few of their last parts as tell them apart.

    Example:
        >>> default_labels([Path("runs/a/candidates"), Path("runs/b/candidates")])
        ('a/candidates', 'b/candidates')
    """
    parts = [Path(os.path.abspath(source)).parts for source in sources]
    names: tuple[str, ...] = ()
    for number in range(1, max(map(len, parts)) + 1):
        names = tuple(printable("/".join(each[-number:])) for each in parts)
        if len(set(names)) == len(names):
            break
    return names


def source_key(source: Path) -> str:
    """Return a key of a source's content: of the artifact, or of the files' names and sizes.

    Raises:
        TastemakerError: It is missing, or not finished.
    """
    kind = kind_of(source)
    if kind == "images":
        names = _image_names(source)
        return config_key([(printable(name), (source / name).stat().st_size) for name in names])
    if kind == "pairs" and not (source / DONE_FILE).is_file():
        return file_content(PairSet(source).file)
    return finished_key(source)


def add_gold(items: Items, folder: Path) -> None:
    """Add pairs with sure verdicts.

    Raises:
        TastemakerError: The folder is not one of pairs, or its pools are gone.
    """
    if kind_of(folder) != "pairs":
        raise TastemakerError(f"gold={folder} is not a folder of pairs; make it with `pair`.")
    items.gold = list(_pairs(items, PairSet(folder)))


def add_photographs(items: Items, place: Path) -> tuple[int, ...]:
    """Add the photographs that a question shows beside its images.

    Args:
        items: The study's images.
        place: A file, or a folder of them.

    Returns:
        Their indices.

    Raises:
        TastemakerError: There is none.
    """
    folder, names = (
        (place, list(_image_names(place))) if place.is_dir() else (place.parent, [place.name])
    )
    if not names or not (folder / names[0]).is_file():
        raise TastemakerError(f"references {place} has no image; name a photograph or a folder.")
    items.readers.append(FolderReader(folder, names))
    number = len(items.readers) - 1
    return tuple(items.add(f"reference/{number}/{at}", -1, number, at) for at in range(len(names)))


def _add_source(items: Items, source: Path, kind: str) -> None:
    """Group the images of one source by prompt, or by the real image that they belong to."""
    groups: dict[str, list[int]] = {}
    prompts: dict[str, str] = {}
    number = len(items.readers)
    for row in _rows(items, source, kind, ""):
        prompts.setdefault(row.item, row.prompt)
        image = items.add(row.candidate_id, 0, number, row.place)
        groups.setdefault(row.item, []).append(image)
    items.groups = [
        Group(prompts[item], members, Shape(1, len(members))) for item, members in groups.items()
    ]


def _add_models(items: Items, sources: Sequence[Path], kinds: Sequence[str]) -> None:
    """Group the images of several models: for each prompt a row per draw, equal seeds together."""
    tables: list[dict[str, list[Row]]] = []
    for source, kind, label in zip(sources, kinds, items.labels, strict=True):
        table: dict[str, list[Row]] = {}
        for row in _rows(items, source, kind, label):
            table.setdefault(row.item, []).append(row)
        tables.append({item: sorted(rows, key=_order) for item, rows in table.items()})
    for source, table in zip(sources, tables, strict=True):
        for one, other in ((tables[0], table), (table, tables[0])):
            if missing := next((rows[0] for item, rows in one.items() if item not in other), None):
                raise TastemakerError(
                    f"{sources[0]} and {source} have other prompts: one lacks"
                    f" {missing.prompt or missing.candidate_id!r}; draw both from equal prompts."
                )
    for item, first in tables[0].items():
        draws = min(len(table[item]) for table in tables)
        members = [
            _add_model_image(items, model, table[item][draw])
            for draw in range(draws)
            for model, table in enumerate(tables)
        ]
        items.groups.append(Group(first[0].prompt, members, Shape(draws, len(tables))))


def _add_model_image(items: Items, model: int, row: Row) -> int:
    if row.candidate_id in items.index:
        raise TastemakerError(
            f"{items.labels[model]} has the image {row.candidate_id} of another source: they were"
            " drawn by one model; name pools of different ones."
        )
    return items.add(row.candidate_id, model, model, row.place)


def _order(row: Row) -> int:
    return row.order


def _rows(items: Items, source: Path, kind: str, label: str) -> Iterator[Row]:
    """Add a source's reader, and yield its images."""
    if kind == "images":
        names = list(_image_names(source))
        if not names:
            raise TastemakerError(f"{source} has no images; name a pool, pairs, or a folder.")
        items.readers.append(FolderReader(source, names))
        yield from _folder_rows(source, names, label)
        return
    finished_key(source)
    items.readers.append(PoolReader(Pool(source)))
    yield from _pool_rows(Pool(source))


def _pool_rows(pool: Pool) -> Iterator[Row]:
    place = 0
    for shard in pool.shards():
        for row in read_table(shard, _COLUMNS).to_pylist():
            yield Row(row["candidate_id"], item_of(row), row["prompt"], row["seed"] or 0, place)
            place += 1


def _folder_rows(folder: Path, names: Sequence[str], label: str) -> Iterator[Row]:
    """Images with their prompts; without one those of a folder compete, or those of equal names."""
    for place, name in enumerate(names):
        path = Path(name)
        prompt = prompt_of(folder / path) or _caption(folder / path)
        same = path.with_suffix("") if label else path.parent
        candidate_id = printable(f"{label}/{name}" if label else name)
        yield Row(candidate_id, prompt or f"\0{same}", prompt, place, place)


def _caption(image: Path) -> str:
    """Return the text beside an image, as kohya's trainers read it; "" where there is none."""
    file = image.with_suffix(".txt")
    return read_text(file)[:LONGEST].strip() if file.is_file() else ""


def _image_names(folder: Path) -> Iterator[str]:
    """Yield the images of a folder and those inside it, in order, without hidden ones."""
    for place, inside, files in os.walk(folder):
        inside[:] = sorted((each for each in inside if not each.startswith(".")), key=os.fsencode)
        for file in sorted(files, key=os.fsencode):
            if not file.startswith(".") and os.path.splitext(file)[1].lower() in SUFFIXES:
                yield os.path.relpath(os.path.join(place, file), folder)


def _pairs(items: Items, pairs: PairSet) -> Iterator[Group]:
    """Add the images of pairs; a pair that several rules made comes once."""
    rows: dict[frozenset[str], dict[str, Any]] = {}
    for row in pairs.rows():
        rows.setdefault(frozenset((row["chosen_id"], row["rejected_id"])), row)
    wanted = {candidate_id for ids in rows for candidate_id in ids}
    for pool in pairs.pools():
        items.readers.append(PoolReader(pool))
        number, place = len(items.readers) - 1, 0
        for shard in pool.shards():
            for candidate_id in read_table(shard, ("candidate_id",))["candidate_id"].to_pylist():
                if candidate_id in wanted:
                    items.add(candidate_id, -1, number, place)
                place += 1
    for pair in rows.values():
        ids = pair["chosen_id"], pair["rejected_id"]
        for candidate_id in ids:
            if candidate_id not in items.index:
                raise TastemakerError(
                    f"candidate {candidate_id} is in none of the pools of {pairs.folder}; pair"
                    " again, or restore the pool."
                )
        yield Group(pair["prompt"], [items.index[each] for each in ids], Shape(1, 2))
