"""One self-contained HTML page from a finished run: images, plots, tables, health warnings.

The page needs no network and no scripts, and the same run gives the same bytes.
"""

from __future__ import annotations

from pathlib import Path

from tastemaker.config.commands import takes_options
from tastemaker.config.sections import ReportConfig
from tastemaker.storage.files import atomic, write_text
from tastemaker.storage.locks import exclusive
from tastemaker.storage.run_dir import RunDir

__all__ = ["report"]


@takes_options(ReportConfig)
def report(config: ReportConfig, run: RunDir) -> Path:
    """Write the page of a finished run to `run.report_html`, its strips to `run.before_after`.

    Parts that the run does not have (validation sheets, metrics, images) are left out.

    Args:
        config: How many strips and pairs to show.
        run: The run; at least `evaluate` must have ended there.

    Returns:
        The path of the page.

    Raises:
        TastemakerError: The run has no `report.json`, or one of its files is torn.
    """
    # Imported here, so that importing the package costs nothing.
    from tastemaker.reporting.before_after import before_after
    from tastemaker.reporting.page import render
    from tastemaker.reporting.run_contents import read
    from tastemaker.reporting.samples import strips

    page = render(config, run)
    picture = before_after(strips(read(run), config.strips)[0])
    with exclusive(run.folder):
        write_text(run.report_html, page)
        if picture is not None:
            with atomic(run.before_after) as temporary:
                picture.save(temporary, format="PNG")
    return run.report_html
