"""Export of pairs and scored pools to the formats that imports read."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tqdm import tqdm

from tastemaker.config.commands import takes_options
from tastemaker.config.datasets import HUMAN, TIE, DataExportConfig
from tastemaker.core.errors import TastemakerError
from tastemaker.core.registry import LAYOUTS
from tastemaker.datasets.comparisons import Comparison, win_shares
from tastemaker.datasets.studies import is_study, study_comparisons, study_key
from tastemaker.storage.artifact import finished_key
from tastemaker.storage.candidates import Rows
from tastemaker.storage.files import config_key, disk_errors, read_record, temporary_of, write_json
from tastemaker.storage.groups import Groups, score_keys
from tastemaker.storage.locks import exclusive
from tastemaker.storage.pairs import PairSet
from tastemaker.storage.pool import Pool

MARKER = ".tastemaker.json"
"""Marker of a finished export, hidden from readers of the folder."""

COLUMNS = ("candidate_id", "prompt", "model", "image")


def is_data(source: Path) -> bool:
    """Return True for a folder of pairs, a pool, or a study."""
    pairs, pool = PairSet(source).file.is_file(), any(source.glob("candidates-*.parquet"))
    return pairs or pool or is_study(source)


@takes_options(DataExportConfig)
def export_comparisons(config: DataExportConfig, source: Path, output: Path) -> Path:
    """Write pairs, the groups of a pool with their verdicts, or votes, in a format of other tools.

    Pairs become comparisons that the chosen image won. Of a pool each prompt's images are compared
    by a column of scores, ties and all: by people's verdicts if it has some. Of a study each vote
    is a comparison of two images, or several are (`verdicts`). One image after another is read; the
    folder appears when it is whole.

    Args:
        config: Format, and the column of verdicts.
        source: Folder of pairs, of a pool, or of a study.
        output: Folder to write.

    Returns:
        `output`.

    Raises:
        TastemakerError: The folder has other contents, the pool lacks the column, or the format
            takes two images only.
    """
    key = config_key(
        config.model_dump(mode="json"), _source_key(source), LAYOUTS.code(config.layout.name)
    )
    with exclusive(output, beside=True):
        if not _exported(output, key):
            _export(config, source, output, key)
    return output


def _exported(output: Path, key: str) -> bool:
    """Return True where this export ended before; refuse a folder with other contents."""
    marker = output / MARKER
    if marker.is_file():
        held = read_record(marker, key=str)
        if held["key"] == key and held.get("held") == _measured(output):
            return True
        if held["key"] == key:
            raise TastemakerError(
                f"{output} does not hold what was exported to it: files are missing, or others."
                " Delete it and run the same command again."
            )
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise TastemakerError(f"{output} exists and holds something else; choose another folder.")
    return False


def _export(config: DataExportConfig, source: Path, output: Path, key: str) -> None:
    unfinished = temporary_of(output)
    try:
        number = _write(config, source, unfinished)
        about = {"key": key, "comparisons": number, "held": _measured(unfinished)}
        write_json(unfinished / MARKER, about)
        with disk_errors(output):
            if output.is_dir():
                output.rmdir()
            unfinished.rename(output)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _measured(folder: Path) -> dict[str, int]:
    """Number and bytes of an exported folder's files, however many; hidden ones do not count."""
    held = {"files": 0, "bytes": 0}
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                below = _measured(Path(entry.path))
                held = {name: held[name] + below[name] for name in held}
            else:
                held["files"] += 1
                held["bytes"] += entry.stat().st_size
    return held


def _write(config: DataExportConfig, source: Path, folder: Path) -> int:
    """Write the comparisons of pairs or a pool; returns how many there are."""
    write = LAYOUTS.bind(config.layout.name, config.layout.options)
    any_number = getattr(LAYOUTS.entry(config.layout.name), "any_number", False)
    counted = tqdm(_comparisons(config, source), desc=f"export {source.name}", unit="comparisons")
    comparisons = iter(counted) if any_number else _of_two(counted, config.layout.name)
    with disk_errors(folder):
        folder.mkdir(parents=True)
        write(comparisons, folder)
    return int(counted.n)


def _source_key(source: Path) -> Any:
    if PairSet(source).file.is_file():
        return finished_key(source)
    if is_study(source):
        return study_key(source)
    return [finished_key(source), score_keys(Pool(source))]


def _comparisons(config: DataExportConfig, source: Path) -> Iterator[Comparison]:
    if PairSet(source).file.is_file():
        return _of_pairs(PairSet(source))
    if is_study(source):
        return study_comparisons(source, config.question)
    return _of_pool(Pool(source), config)


def _of_pairs(pairs: PairSet) -> Iterator[Comparison]:
    pools = [Rows(pool, COLUMNS) for pool in pairs.pools()]
    for row in pairs.rows():
        sides = [_row(pools, row[name]) for name in ("chosen_id", "rejected_id")]
        yield Comparison(
            row["pair_id"],
            row["prompt"],
            tuple(side["image"]["bytes"] for side in sides),
            (1.0, 0.0),
            tuple(side["model"] or "" for side in sides),
            ids=(row["chosen_id"], row["rejected_id"]),
        )


def _of_pool(pool: Pool, config: DataExportConfig) -> Iterator[Comparison]:
    scorer = _verdicts(pool, config)
    rows = Rows(pool, COLUMNS)
    for group in Groups(pool, scored=[scorer] if scorer else ()):
        ids = group.candidate_ids
        scores = group.scored_by(scorer) if scorer else [0.0] * len(ids)
        held = [rows[each] for each in ids]
        shares = win_shares(scores)
        # Where ties are labelled, an equal verdict without the label is none.
        unseen = scorer == HUMAN and TIE in group.scores and not any(group.scores[TIE])
        yield Comparison(
            group.item_id,
            group.prompt,
            tuple(row["image"]["bytes"] for row in held),
            shares,
            tuple(row["model"] or "" for row in held),
            judged=not (unseen and len(set(shares)) == 1),
            ids=tuple(ids),
        )


def _verdicts(pool: Pool, config: DataExportConfig) -> str | None:
    """Return the column that a pool's images are compared by; None where the format needs none."""
    held = pool.scorers()
    if config.scorer is not None:
        return config.scorer
    if HUMAN in held:
        return HUMAN
    if len(held) == 1:
        return held[0]
    if config.layout.name == "captions" and not held:
        return None
    raise TastemakerError(
        f"{pool.folder} has no column {HUMAN!r}; name the scorer whose scores compare its images:"
        f" scorer=... It has {', '.join(held) or 'none: run `score` first'}."
    )


def _of_two(comparisons: Iterator[Comparison], layout: str) -> Iterator[Comparison]:
    for comparison in comparisons:
        number = len(comparison.images)
        if number != 2:
            raise TastemakerError(
                f"format {layout!r} compares two images, but prompt {comparison.prompt!r} has"
                f" {number}; `pair` the pool and export the pairs, or set layout=rankings."
            )
        yield comparison


def _row(pools: list[Rows], candidate_id: str) -> dict[str, Any]:
    for rows in pools:
        if (row := rows.get(candidate_id)) is not None:
            return row
    raise TastemakerError(
        f"candidate {candidate_id} is in none of the pairs' pools; pair again, or restore the pool."
    )
