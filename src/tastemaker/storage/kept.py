"""Artifacts of a run's other configurations: put aside under their keys, and brought back.

The plain names in a run's folder (`candidates`, `policy`...) are of its current configuration; what
others made lies in `.artifacts`, under the same name and its key. A folder comes and goes by one
rename, so that a kill loses nothing and every disk and archive can hold it.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tastemaker.core.errors import TastemakerError
from tastemaker.core.reading import read_text
from tastemaker.storage.files import (
    config_key,
    disk_errors,
    read_record,
    temporary_of,
    write_json,
    write_text,
)
from tastemaker.storage.locks import ARTIFACT_FILE, refuse_writers, still_held

KEPT = ".artifacts"
"""Folder in a run's folder of what its other configurations made."""

RUN_FILE = "config.yaml"
ENVIRONMENT = "environment.json"
PAGE, STRIPS, SCORES, REPORT = RESULTS = (
    "report.html",
    "before_after.png",
    "scores.parquet",
    "report.json",
)
"""Files of a run's results, in the order in which they are put aside."""


def run_above(folder: Path) -> Path | None:
    """Return the run that this command has claimed and that a folder lies in; None outside one."""
    above = folder.parents
    return next((run for run in above if (run / RUN_FILE).is_file() and still_held(run)), None)


def kept_place(folder: Path, key: str, run: Path) -> Path:
    """Return where an artifact of a run is put aside."""
    return run / KEPT / folder.relative_to(run).with_name(f"{folder.name}-{key}")


def put_aside(folder: Path, run: Path) -> None:
    """Move an artifact to the name with its key, and the run's results; call in the main process.

    Raises:
        TastemakerError: Another command writes there, or the same artifact is there already.
    """
    place = kept_place(folder, read_record(folder / ARTIFACT_FILE, key=str)["key"], run)
    if place.exists():
        raise TastemakerError(f"{folder} and {place} are the same artifact; delete one of them.")
    refuse_writers(folder)
    put_results_aside(run)
    with disk_errors(place):
        place.parent.mkdir(parents=True, exist_ok=True)
        folder.rename(place)


def put_results_aside(run: Path) -> None:
    """Move a run's report, with copies of what it is of, to `.artifacts/run-KEY`."""
    if not (run / REPORT).is_file():
        return
    key = config_key(read_text(run / RUN_FILE), read_text(run / REPORT))
    place = run / KEPT / f"run-{key}"
    with disk_errors(place):
        for name in (RUN_FILE, ENVIRONMENT):
            if (run / name).is_file():
                write_text(place / name, read_text(run / name))
        for name in RESULTS:
            if (run / name).is_file():
                (run / name).replace(place / name)


def bring_back(folder: Path, key: str, run: Path) -> bool:
    """Move an artifact that was put aside to its plain name, which is free; say if there was one.

    Call in the main process.
    """
    place = kept_place(folder, key, run)
    if not place.is_dir():
        return False
    with disk_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        place.rename(folder)
    return True


def artifacts_below(folder: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yield all artifacts below a folder, with what their `artifact.json` says."""
    for marker in sorted(folder.rglob(ARTIFACT_FILE)):
        yield marker.parent, read_record(marker, command=str, key=str, config=dict)


def kept_artifacts(run: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yield the artifacts that were put aside, those inside of others apart."""
    for place, about in artifacts_below(run / KEPT):
        if place.name.endswith(f"-{about['key']}"):
            yield place, about


def kept_reports(run: Path) -> list[Path]:
    """Return the folders of reports of other configurations."""
    return sorted(file.parent for file in (run / KEPT).glob(f"run-*/{REPORT}"))


def copy_work(source: Path, folder: Path, names: set[str], about: dict[str, Any]) -> None:
    """Begin an artifact with copies of another's files; call in the main process.

    Args:
        source: The other artifact.
        folder: The new one, which does not exist; it appears whole.
        names: Files and folders to copy.
        about: Content of its `artifact.json`.

    Raises:
        TastemakerError: The disk is full or not writable.
    """
    temporary = temporary_of(folder)
    try:
        with disk_errors(folder):
            temporary.mkdir(parents=True)
            for part in source.iterdir():
                if part.name in names:
                    (shutil.copytree if part.is_dir() else shutil.copy2)(
                        part, temporary / part.name
                    )
            write_json(temporary / ARTIFACT_FILE, about)
            temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
