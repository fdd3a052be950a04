"""Votes to results: JSON, a page, and columns of a pool."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tastemaker.config.commands import takes_options
from tastemaker.config.votes import VotesConfig
from tastemaker.core.errors import TastemakerError
from tastemaker.preflight import check
from tastemaker.storage.files import write_json, write_text
from tastemaker.storage.locks import exclusive
from tastemaker.storage.run_dir import refuse_claimed

__all__ = ["votes"]

JSON, PAGE = "votes.json", "votes.html"


@takes_options(VotesConfig)
def votes(config: VotesConfig, studies: Sequence[Path | str]) -> str:
    """Merge the votes of studies, and write what they say.

    Args:
        config: Output, and the pool that gets columns of votes.
        studies: Folders of studies of equal sources, folders or files of votes (.jsonl, .parquet),
            or exports of Label Studio (.json).

    Returns:
        A sentence fit for a paper, and the path of the page.

    Raises:
        TastemakerError: A source has no votes or is damaged, studies are of different sources, or
            the output cannot be written.
    """
    # Imported here, so that importing the package costs nothing.
    from tastemaker.datasets.studies import read_studies
    from tastemaker.reporting.votes.page import render
    from tastemaker.reporting.votes.results import results
    from tastemaker.storage.pool import Pool

    check(config)
    places = [Path(each) for each in studies]
    output = _output(config, places)
    read = read_studies(places)
    pools = [*read.pools, *([Pool(Path(config.pool).expanduser())] if config.pool else [])]
    lines = _columns(config, read.votes, pools[-1]) if config.pool else []
    opened = {pool.folder.resolve(): pool for pool in pools}.values()
    found = results(read.votes, opened, read.gold)
    refuse_claimed(output)
    with exclusive(output, beside=True):
        write_json(output / JSON, found)
        write_text(output / PAGE, render(output.resolve().name, found))
    return "\n".join([found["sentence"], *lines, str(output / PAGE)])


def _output(config: VotesConfig, studies: Sequence[Path]) -> Path:
    if config.output is not None:
        return Path(config.output).expanduser()
    if len(studies) == 1 and studies[0].is_dir():
        return studies[0]
    raise TastemakerError("votes of several sources, or of a file, need a folder: output=FOLDER.")


def _columns(config: VotesConfig, cast: Sequence[Any], pool: Any) -> list[str]:
    from tastemaker.datasets.verdicts import counting, of_question, verdicts
    from tastemaker.evaluation.human_columns import add_human_columns

    chosen = verdicts(counting(of_question(cast, config.question)))
    added = add_human_columns(chosen, pool, config.column)
    return [f"{pool.folder}: {name} of {number} images" for name, number in added.items()]
