"""Overview of a pool or of pairs, as text and as a page."""

from __future__ import annotations

import sys
from pathlib import Path

from tastemaker.config.commands import takes_options
from tastemaker.config.datasets import ShowConfig
from tastemaker.storage.files import write_text
from tastemaker.storage.locks import exclusive

__all__ = ["show"]


@takes_options(ShowConfig)
def show(config: ShowConfig, folder: Path) -> str:
    """Describe a pool or pairs, and write the page where one is asked for.

    Args:
        config: Options.
        folder: Folder of a pool, or of pairs.

    Returns:
        Lines for the terminal; with pictures where it shows colours.

    Raises:
        TastemakerError: The folder holds neither, or a file in it is torn.
    """
    # Imported here, so that importing the package costs nothing.
    from tastemaker.reporting.pool.overview import read
    from tastemaker.reporting.pool.text import blocks, lines

    overview = read(folder, config.images)
    if config.against is not None:
        from tastemaker.reporting.pool.shared import shared

        overview.facts |= shared(folder, Path(config.against))
    text = lines(overview)
    if sys.stdout.isatty():
        text += blocks(overview)
    if config.html is not None:
        from tastemaker.reporting.pool.page import render

        page = Path(config.html)
        with exclusive(page, beside=True):
            write_text(page, render(overview))
        text += f"\n{config.html}"
    return text
