"""Import compared images, or captioned photographs, to a pool.

People's verdicts on compared images become a column of scores, `human`: rule
`{name: best_worst, scorer: human}` pairs by the verdicts, and any other scorer relabels the same
comparisons. Photographs become candidates with the source `real`.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from tastemaker.config.commands import takes_options
from tastemaker.config.datasets import ImagesConfig, ImportConfig, SourceConfig
from tastemaker.core.content_hash import contents
from tastemaker.core.errors import TastemakerError
from tastemaker.datasets.conversion import converter
from tastemaker.datasets.filters import words_key
from tastemaker.datasets.importer import Importer, left_to_main_process
from tastemaker.datasets.items import Source
from tastemaker.storage.artifact import Artifact
from tastemaker.storage.pool import Pool


@takes_options(ImportConfig)
def import_comparisons(config: ImportConfig, output: Path) -> Path:
    """Import compared images to a pool with a column of verdicts.

    Each comparison is a group of its own, also where a prompt occurs again. Comparisons with an
    image that cannot be read, with the same picture twice or with an empty prompt are left out,
    counted and named in `left_out.jsonl`; items dropped by filters, the split and ties are counted.

    Args:
        config: Source, format, size, and filters.
        output: Folder of the pool.

    Returns:
        `output`, a finished pool with the scores `human`.

    Raises:
        TastemakerError: The source is missing, torn or of another format, has an invalid label,
            holds no usable comparison, or the disk is full.
    """
    return _import(config, output)


@takes_options(ImagesConfig)
def import_images(config: ImagesConfig, output: Path) -> Path:
    """Import captioned photographs to a pool with the source `real`.

    Each image is turned upright, laid over white, cut to its box where it has one, cropped to the
    middle and scaled. Left out, counted and named in `left_out.jsonl` are images without a caption
    or that cannot be read, repetitions of a picture, and those that would have to be enlarged;
    items dropped by filters and the split are counted.

    Args:
        config: Source, format, size, and filters.
        output: Folder of the pool.

    Returns:
        `output`, a finished pool.

    Raises:
        TastemakerError: The source is missing or of another format, holds no usable image or fewer
            than `limit` asks for, or the disk is full.
    """
    return _import(config, output)


def open_source(config: SourceConfig) -> Source[Any]:
    """Open the source of an import; of comparisons it is cut to the first `limit`."""
    choice = config.source
    source: Source[Any] = choice.table.bind(choice.name, choice.options)()
    items: Iterator[Any] = source.items
    if isinstance(config, ImportConfig):
        items = itertools.islice(items, config.limit)
    return replace(source, items=items)


def _import(config: SourceConfig, output: Path) -> Path:
    choice = config.source
    source = open_source(config)
    inputs = {
        "source": {"path": choice.options.get("path"), **contents(source.files)},
        "words": words_key(config.filters),
        "code": choice.table.code(choice.name),
    }
    artifact = Artifact(output, "import", {**config.model_dump(mode="json"), "inputs": inputs})
    with artifact.claimed() as unfinished, contextlib.ExitStack() as claims:
        if not unfinished:
            return output
        verdicts = {
            scorer: Artifact(output / "scores" / scorer, f"score {scorer}", {"pool": artifact.key})
            for scorer in config.scorers
        }
        open_verdicts = {
            scorer: each
            for scorer, each in verdicts.items()
            if claims.enter_context(each.claimed())
        }
        if left_to_main_process(artifact):
            return output
        # Of images, `limit` counts the usable ones.
        limit = config.limit if isinstance(config, ImagesConfig) else None
        importer = Importer(
            Pool(output), config.kind, converter(config), config.shard_size, limit, config.scorers
        )
        total = importer.fill(source, str(choice.options.get("path", choice.name)))
        if limit is not None and total.taken < limit:
            raise TastemakerError(
                f"fewer real images than asked: {total.taken} can be used, limit={limit}"
                f" ({total.left_out} left out, see {Pool(output).left_out})."
                f" Delete {output}, then lower limit or add images."
            )
        for scorer, each in open_verdicts.items():
            each.finish(scorer=scorer)
        artifact.finish(**{f"{config.kind}s": total.taken}, **total.counts())
    return output
