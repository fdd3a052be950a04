"""One self-contained HTML page from a finished run: images, plots, tables, health warnings.

The page needs no network and no scripts, and the same run gives the same bytes.
"""

from __future__ import annotations

from pathlib import Path

from tastemaker.config.commands import takes_options
from tastemaker.config.sections import ReportConfig
from tastemaker.core.content_hash import files_below
from tastemaker.storage.files import atomic, write_text
from tastemaker.storage.locks import exclusive
from tastemaker.storage.run_dir import RunDir

REPORTING = Path(__file__).parent

__all__ = ["report", "up_to_date"]


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
        if picture is not None:
            with atomic(run.before_after) as temporary:
                picture.save(temporary, format="PNG")
        write_text(run.report_html, page)  # last: `up_to_date` compares times
    return run.report_html


def up_to_date(run: RunDir) -> bool:
    """Return whether a run's page is newer than all files of the run, and than its own code."""
    if not run.report_html.is_file():
        return False
    written = run.report_html.stat().st_mtime_ns
    code = (file for suffix in ("py", "html", "css") for file in REPORTING.rglob(f"*.{suffix}"))
    sources = (*files_below(run.folder), *code)
    return all(file.stat().st_mtime_ns <= written for file in sources)
