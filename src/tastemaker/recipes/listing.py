"""List what lies in a run's folder: its artifacts, and those that other options made."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tastemaker.config.loading import read_yaml
from tastemaker.storage.artifact import DONE_FILE, first_difference
from tastemaker.storage.kept import KEPT, artifacts_below, kept_artifacts, kept_reports
from tastemaker.storage.pool import Pool
from tastemaker.storage.run_dir import RunDir


def listing(run: RunDir) -> str:
    """Describe a run's folder, a line per artifact.

    Args:
        run: The run's folder.

    Returns:
        The current artifacts; those kept from other options, with the first option that differs;
        and the reports of those.

    Raises:
        TastemakerError: One of its files is damaged.
    """
    config = read_yaml(run.config)
    current = {
        place.relative_to(run.folder): about
        for place, about in artifacts_below(run.folder)
        if not {KEPT, "scores", "features"} & set(place.relative_to(run.folder).parts)
    }
    lines = [f"{run.folder}: a run of {config.get('recipe')}"]
    lines += [_line(run.folder, name, about) for name, about in current.items()]
    kept = list(_kept(run, current))
    for place in kept_reports(run.folder):
        change = first_difference(read_yaml(RunDir(place).config), config)
        kept.append(f"  {place.relative_to(run.folder)}: report, {change}")
    if kept:
        lines += ["", "made with other options; set them back and run again to use it:", *kept]
    return "\n".join(lines)


def _kept(run: RunDir, current: dict[Path, dict[str, Any]]) -> Iterator[str]:
    for place, about in kept_artifacts(run.folder):
        name = place.relative_to(run.folder)
        plain = name.with_name(name.name.removesuffix(f"-{about['key']}"))
        now = current.get(plain.relative_to(KEPT))
        change = f", {first_difference(about['config'], now['config'])}" if now else ""
        yield _line(run.folder, name, about) + change


def _line(run: Path, name: Path, about: dict[str, Any]) -> str:
    state = "" if (run / name / DONE_FILE).is_file() else ", unfinished"
    scorers = Pool(run / name).scorers()
    scored = f", scored by {', '.join(scorers)}" if scorers else ""
    return f"  {name}: {about['command']}{state}{scored}"
