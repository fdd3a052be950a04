"""The `doctor` command."""

from __future__ import annotations

import argparse
from pathlib import Path

from tastemaker.config import loading as config
from tastemaker.config.alternatives import NOISES, REFERENCES
from tastemaker.config.sections import PanelConfig
from tastemaker.core.errors import TastemakerError

RUN = "demo"
"""Run whose base is drawn where neither a pool nor another run is given."""


def doctor_command(parsed: argparse.Namespace) -> int:
    """Versions, machine and every registered name; what a run needs; or what fools a scorer."""
    if parsed.source is not None and "=" in parsed.source and not Path(parsed.source).exists():
        parsed.source, parsed.overrides = None, [parsed.source, *parsed.overrides]
    if parsed.scorer is not None:
        return _panel(parsed)
    if parsed.source is not None:
        from tastemaker.doctor import memory

        print(memory.table(config.load(parsed.source, tuple(parsed.overrides))))
        return 0
    if parsed.overrides:
        raise TastemakerError(
            f"doctor {parsed.overrides[0]}: an option belongs to a run; name the run before it."
        )
    _list_everything()
    return 0


def _list_everything() -> None:
    from tastemaker.core.hardware import environment
    from tastemaker.core.registry import TABLES
    from tastemaker.scorers.availability import scorer_states

    for name, value in environment().items():
        print(f"{name:>14}  {value}")
    print("\nscorers here:")
    for name, notes in scorer_states():
        print("".join([f"  {name}: installed", *(f"\n      {note}" for note in notes)]))
    for table in TABLES:
        print(f"\nregistered as {table.kind}:")
        for name in table.names():
            print(f"  {name}: {table.describe(name)}")
    for key, alternatives in (("reference", REFERENCES), ("noise", NOISES)):
        print(f"\nalternatives of train.{key}:")
        for name, line in alternatives.items():
            print(f"  {name}: {line}")


def _panel(parsed: argparse.Namespace) -> int:
    """Print the nuisance panel of a scorer; 1 where a nuisance fools it."""
    from tastemaker.doctor import nuisance_panel as panel
    from tastemaker.storage.files import write_json

    scorer, overrides = f"scorer={parsed.scorer}", tuple(parsed.overrides)
    source = parsed.source or RUN
    if Path(source).is_dir():
        options = config.section(PanelConfig, None, (scorer, *overrides))
        rows = panel.pool_rows(options, Path(source))
    else:
        drawing = config.load(source, overrides).evaluate
        own = (f"batch_size={drawing.batch_size}", f"device={drawing.device}")
        options = config.section(PanelConfig, None, (scorer, *own))
        rows = panel.drawn_rows(options, drawing, parsed.images)
    found = panel.nuisance_panel(options, rows)
    print(panel.table(found))
    if parsed.json is not None:
        write_json(Path(parsed.json), found)
    return int(any(entry["fools"] for entry in found["nuisances"].values()))
