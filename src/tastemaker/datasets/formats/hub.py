"""Any data set that the library `datasets` loads, by naming its columns."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

from pydantic import Field

from tastemaker.core.errors import TastemakerError
from tastemaker.core.hub import offline_if_unreachable
from tastemaker.core.reading import read_bytes
from tastemaker.core.registry import COMPARISONS
from tastemaker.datasets.comparisons import (
    Comparison,
    Label,
    WrongLabel,
    of_two,
    or_left_out,
    prompt_of,
    read_label,
)
from tastemaker.datasets.items import LeftOut, Refused, Source
from tastemaker.datasets.parquet import image_bytes


@COMPARISONS.register("datasets")
def from_datasets(
    *,
    path: Annotated[str, Field(description="Hub id, local folder, or folder of save_to_disk.")],
    subset: Annotated[
        str | None, Field(description="Its configuration, where it has some.")
    ] = None,
    split: Annotated[str, Field(description="Its split.")] = "train",
    revision: Annotated[str | None, Field(description="Branch, tag or commit on the hub.")] = None,
    prompt: Annotated[str, Field(description="Column of the prompt.")] = "prompt",
    first: Annotated[str, Field(description="Column of the first image.")] = "chosen",
    second: Annotated[str, Field(description="Column of the second image.")] = "rejected",
    label: Annotated[
        str | None, Field(description="Column of the verdict; null: the first is preferred.")
    ] = None,
    labels: Annotated[
        dict[str | int | float | bool, float | str] | None,
        Field(description="Value of that column to 1 (the first), 0, 0.5 or both_bad."),
    ] = None,
) -> Source[Comparison]:
    """Any data set of the library `datasets`, by naming its columns.

    Rows are streamed: what is on the hub is not downloaded as a whole first.

    Args:
        path: What `datasets.load_dataset` takes, or a folder that `save_to_disk` wrote.
        subset: Its configuration.
        split: Its split.
        revision: Branch, tag or commit on the hub; name a commit, and it is the same tomorrow.
        prompt: Column of the prompt.
        first: Column of the first image.
        second: Column of the second image.
        label: Column of the verdict on the first image.
        labels: What its values mean, e.g. `{model_a: 1, model_b: 0, tie: 0.5}`.

    Returns:
        Its comparisons in order of rows.

    Raises:
        TastemakerError: The library is not installed, or the data set cannot be loaded.
    """
    columns = (prompt, first, second, *([label] if label else []))
    rows = _load(path, subset, split, revision, columns)
    local = Path(path)
    files = sorted(file for file in local.rglob("*") if file.is_file()) if local.is_dir() else ()

    def comparison(where: str, row: Mapping[str, Any]) -> Comparison:
        lacking = [name for name in columns if name not in row]
        if lacking:
            raise TastemakerError(f"no column {lacking[0]!r}; it has {sorted(row)}")
        return of_two(
            where,
            prompt_of(row, (prompt,)),
            (_image(row[first], first), _image(row[second], second)),
            1.0 if label is None else _verdict(row[label], label, labels),
        )

    return Source(files, _read(rows, path, split, comparison))


def _read(
    rows: Iterable[Mapping[str, Any]],
    path: str,
    split: str,
    comparison: Callable[[str, Mapping[str, Any]], Comparison],
) -> Iterator[Comparison | LeftOut]:
    number = 0
    try:
        for row in rows:
            where = f"{split}, row {number}"
            yield or_left_out(where, functools.partial(comparison, where, row))
            number += 1
    except (OSError, ValueError, RuntimeError) as error:
        yield Refused(f"{path}, row {number}", f"the data set breaks off: {error}")


def _library() -> ModuleType:
    try:
        import datasets
    except ImportError:
        raise TastemakerError(
            "format 'datasets' needs the library of that name: pip install 'tastemaker[datasets]'."
        ) from None
    return datasets


def _load(
    path: str, subset: str | None, split: str, revision: str | None, columns: tuple[str, ...]
) -> Any:
    """Return the data set as an iterable of rows with encoded images."""
    library = _library()
    try:
        if (Path(path) / "dataset_dict.json").is_file() or (Path(path) / "state.json").is_file():
            held = library.load_from_disk(path)
            rows = held[split] if isinstance(held, library.DatasetDict) else held
        else:
            offline_if_unreachable()
            rows = library.load_dataset(
                path, subset, split=split, revision=revision, streaming=True
            )
    except (OSError, ValueError, KeyError, RuntimeError, library.exceptions.DatasetsError) as error:
        raise TastemakerError(
            f"data set {path!r} cannot be loaded: {error}. Check the name; without a network give a"
            " folder that `save_to_disk` wrote."
        ) from None
    features = rows.features or {}  # unknown in some streams; their rows are checked instead
    missing = [name for name in columns if features and name not in features]
    if missing:
        raise TastemakerError(
            f"data set {path!r} has no column {missing[0]!r}; it has {list(features)}."
        )
    rows = rows.select_columns(list(columns)) if features else rows
    for name, feature in features.items():
        if name in columns and isinstance(feature, library.Image):
            rows = rows.cast_column(name, library.Image(decode=False))
    return rows


def _image(value: Any, column: str) -> bytes:
    encoded = image_bytes(value)
    if encoded:
        return encoded
    if isinstance(value, dict) and value.get("path"):
        return read_bytes(Path(value["path"]))
    raise TastemakerError(f"column {column!r} holds no image")


def _verdict(value: Any, column: str, labels: Mapping[Any, float | str] | None) -> Label:
    if labels is None:
        return read_label(value, column)
    if value not in labels:
        known = ", ".join(map(str, labels))
        raise WrongLabel(f"{column} is {value!r}, of which `labels` says nothing ({known})")
    return read_label(labels[value], f"labels.{value}")
