"""Import compared images, or captioned photographs, to a pool.

People's verdicts on compared images become a column of scores, `human`, so that the steps that
follow need not know where candidates come from: rule `{name: best_worst, scorer: human}` pairs by
the verdicts, and any other scorer relabels the same comparisons. Photographs become candidates with
the source `real`.
"""

from __future__ import annotations

import contextlib
import itertools
from pathlib import Path

from tastemaker.config.datasets import ImagesConfig, ImportConfig
from tastemaker.core.content_hash import contents
from tastemaker.core.errors import TastemakerError
from tastemaker.core.registry import CAPTIONED, COMPARISONS
from tastemaker.datasets.captioned import CaptionedImages
from tastemaker.datasets.comparisons import ComparedImages
from tastemaker.datasets.conversion import Compared, Photograph
from tastemaker.datasets.filters import words_key
from tastemaker.datasets.importer import Intake, left_to_main_process
from tastemaker.storage.artifact import Artifact
from tastemaker.storage.pool import Pool


def import_comparisons(config: ImportConfig, output: Path) -> Path:
    """Turn compared images into a pool with a column of verdicts.

    Each comparison is a group of its own, also where a prompt occurs again. Comparisons with an
    image that cannot be read, with the same picture twice or with an empty prompt are left out,
    counted and named in `left_out.jsonl`; what filters, the split and ties drop is counted.

    Args:
        config: Source, format, size, and what to keep.
        output: Folder of the pool.

    Returns:
        `output`, a finished pool with the scores `human`.

    Raises:
        TastemakerError: The source is missing, torn or of another format, has a label that is none,
            holds no usable comparison, or the disk is full.
    """
    choice = config.comparisons
    source: ComparedImages = COMPARISONS.bind(choice.name, choice.options)()
    inputs = {
        "source": {"path": choice.options.get("path"), **contents(source.files)},
        **source.identity,
        "words": words_key(config.filters),
        "code": COMPARISONS.code(choice.name),
    }
    artifact = Artifact(output, "import", {**config.model_dump(mode="json"), "inputs": inputs})
    convert = Compared.of(config)
    with artifact.claimed() as unfinished, contextlib.ExitStack() as claims:
        if not unfinished:
            return output
        verdicts = {
            scorer: Artifact(output / "scores" / scorer, f"score {scorer}", {"pool": artifact.key})
            for scorer in convert.scorers
        }
        open_verdicts = {
            scorer: each
            for scorer, each in verdicts.items()
            if claims.enter_context(each.claimed())
        }
        if left_to_main_process(artifact):
            return output
        pool = Pool(output)
        intake = Intake(pool, "comparison", convert, config.shard_size, scorers=convert.scorers)
        rows = itertools.islice(source.comparisons, config.limit)
        name = str(choice.options.get("path", choice.name))
        total = intake.fill(rows, name, source.passed_over)
        for scorer, each in open_verdicts.items():
            each.finish(scorer=scorer)
        artifact.finish(comparisons=total.taken, **total.counts())
    return output


def import_images(config: ImagesConfig, output: Path) -> Path:
    """Turn captioned photographs into a pool with the source `real`.

    Each image is turned upright, laid over white, cut to its box where it has one, cropped to the
    middle and scaled. Left out, counted and named in `left_out.jsonl` are images without a caption
    or that cannot be read, repetitions of a picture, and those that would have to be enlarged; what
    filters and the split drop is counted.

    Args:
        config: Source, format, size, and what to keep.
        output: Folder of the pool.

    Returns:
        `output`, a finished pool.

    Raises:
        TastemakerError: The source is missing or of another format, holds no usable image or fewer
            than `limit` asks for, or the disk is full.
    """
    choice = config.images
    images: CaptionedImages = CAPTIONED.bind(choice.name, choice.options)()
    inputs = {
        "source": {"path": choice.options.get("path"), **contents(images.files)},
        "words": words_key(config.filters),
        "code": CAPTIONED.code(choice.name),
    }
    artifact = Artifact(output, "import", {**config.model_dump(mode="json"), "inputs": inputs})
    with artifact.claimed() as unfinished:
        if unfinished and not left_to_main_process(artifact):
            _take_images(config, images, artifact)
    return output


def _take_images(config: ImagesConfig, images: CaptionedImages, artifact: Artifact) -> None:
    output, choice, convert = artifact.folder, config.images, Photograph.of(config)
    intake = Intake(Pool(output), "image", convert, config.shard_size, config.limit)
    name = str(choice.options.get("path", choice.name))
    total = intake.fill(images.images, name, images.passed_over)
    if config.limit is not None and total.taken < config.limit:
        raise TastemakerError(
            f"fewer real images than asked: {total.taken} can be used, limit={config.limit}"
            f" ({total.left_out} left out, see {Pool(output).left_out})."
            f" Delete {output}, then lower limit or add images."
        )
    artifact.finish(images=total.taken, **total.counts())
