"""ROOM 1, other doors: compared images, or captioned photographs, to a pool.

People's verdicts on compared images become a column of scores, `human`, so that the rooms that
follow need not know where candidates come from: rule `{name: best_worst, scorer: human}` pairs by
the verdicts, and any other scorer relabels the same comparisons. Photographs become candidates with
the source `real`.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from tastemaker.candidates import REAL
from tastemaker.captioned import Captioned, CaptionedImages
from tastemaker.comparisons import Comparison
from tastemaker.errors import TastemakerError
from tastemaker.files import config_key
from tastemaker.images import (
    crop_box,
    decode_photograph,
    encode_png,
    fit,
    pixel_hash,
    sizes_told,
    square,
)
from tastemaker.intake import Intake, Usable, left_to_main_process
from tastemaker.parquet import parquet_files
from tastemaker.records import Pool, Stage
from tastemaker.registry import CAPTIONED, COMPARISONS
from tastemaker.sections import ImagesConfig, ImportConfig

HUMAN = "human"
"""Column of the verdicts: 1 for the image preferred, 0 for the other, 0.5 for both on a tie."""


def import_comparisons(config: ImportConfig, output: Path) -> Path:
    """Turn compared images into a pool with a column of verdicts.

    Each comparison is a group of its own, also where a prompt occurs again. Comparisons with an
    image that cannot be read or a prompt that is empty are left out, counted and named in
    `left_out.jsonl`.

    Args:
        config: Source, format and size.
        output: Folder of the pool.

    Returns:
        `output`, a finished pool with the scores `human`.

    Raises:
        TastemakerError: The source is missing or of another format, holds no usable comparison, or
            the disk is full.
    """
    choice = config.comparisons
    source = str(choice.options["path"])
    files = [[file.name, file.stat().st_size] for file in parquet_files(Path(source))]
    stage = Stage(output, "import", {**config.model_dump(mode="json"), "inputs": files})
    if stage.begin().finished or left_to_main_process(stage):
        return output
    verdicts = Stage(output / "scores" / HUMAN, f"score {HUMAN}", {"pool": stage.key}).begin()
    rows = itertools.islice(COMPARISONS.bind(choice.name, choice.options)(), config.limit)
    convert = functools.partial(_compared, config.size)
    intake = Intake(Pool(output), "comparison", convert, config.shard_size // 2, scorer=HUMAN)
    tally = intake.fill(rows, source)
    verdicts.finish(scorer=HUMAN)
    stage.finish(comparisons=tally.taken, left_out=len(tally.left_out))
    return output


def import_images(config: ImagesConfig, output: Path) -> Path:
    """Turn captioned photographs into a pool with the source `real`.

    Each image is turned upright, laid over white, cut to its box where it has one, cropped to the
    middle and scaled. Left out, counted and named in `left_out.jsonl` are images without a caption
    or that cannot be read, repetitions of a picture, and those that would have to be enlarged.

    Args:
        config: Source, format and size.
        output: Folder of the pool.

    Returns:
        `output`, a finished pool.

    Raises:
        TastemakerError: The source is missing or of another format, holds no usable image or fewer
            than `limit` asks for, or the disk is full.
    """
    choice = config.images
    images: CaptionedImages = CAPTIONED.bind(choice.name, choice.options)()
    settings = {**config.model_dump(mode="json"), "inputs": _identity(images.files)}
    stage = Stage(output, "import", settings)
    if stage.begin().finished or left_to_main_process(stage):
        return output
    convert = functools.partial(_photograph, config)
    intake = Intake(Pool(output), "image", convert, config.shard_size, config.limit)
    tally = intake.fill(images.images, str(choice.options.get("path", choice.name)))
    if config.limit is not None and tally.taken < config.limit:
        raise TastemakerError(
            f"fewer real images than asked: {tally.taken} can be used, limit={config.limit}"
            f" ({len(tally.left_out)} left out, see {Pool(output).left_out})."
            f" Delete {output}, then lower limit or add images."
        )
    stage.finish(images=tally.taken, left_out=len(tally.left_out))
    return output


def _identity(files: Sequence[Path]) -> dict[str, Any]:
    """The files of a source as an input of a stage: thousands in one line."""
    sizes = [(str(file), file.stat().st_size) for file in files]
    return {
        "files": len(sizes),
        "bytes": sum(size for _, size in sizes),
        "key": config_key(sizes),
    }


def _compared(size: int | None, comparison: Comparison, number: int) -> Usable:
    """Both images as candidates, each with its verdict."""
    prompt = _prompt(comparison.prompt, "prompt")
    group = config_key(comparison.where)
    rows = []
    for place, (data, model) in enumerate(zip(comparison.images, comparison.models, strict=True)):
        try:
            image = decode_photograph(data)
        except TastemakerError as error:
            raise TastemakerError(f"image {place}: {error}") from None
        rows.append(
            {
                "candidate_id": f"{group}-{place}",
                "prompt_id": group,
                "prompt": prompt,
                "seed": place,
                "source": "imported",
                "source_id": comparison.where,
                "timestep": None,
                "model": model,
                "image": {"bytes": encode_png(square(image, size)) if size else data, "path": None},
            }
        )
    return Usable(tuple(rows), comparison.verdicts)


def _photograph(config: ImagesConfig, captioned: Captioned, number: int) -> Usable:
    """A photograph as a candidate, cropped and scaled."""
    prompt = _prompt(captioned.caption, "caption")
    whole = decode_photograph(captioned.encoded())
    image = whole if captioned.box is None else crop_box(whole, captioned.box)
    width, height = _target(config, image)
    _refuse_small(image, width, height, config.minimum)
    prompt_id = config_key(prompt)
    row = {
        "candidate_id": f"{prompt_id}-{config_key(REAL, captioned.where)}",
        "prompt_id": prompt_id,
        "prompt": prompt,
        "seed": number,
        "source": REAL,
        "source_id": captioned.where,
        "timestep": None,
        "model": "",
        "image": {"bytes": encode_png(fit(image, width, height)), "path": None},
        **sizes_told(whole, captioned.box, width, height),
    }
    return Usable((row,), picture=pixel_hash(image))


def _prompt(text: str, what: str) -> str:
    """The text as a prompt: stripped, and something that a file can hold."""
    prompt = text.strip()
    if not prompt:
        raise TastemakerError(f"the {what} is empty")
    try:
        prompt.encode()
    except UnicodeEncodeError:
        raise TastemakerError(f"the {what} is not valid Unicode") from None
    return prompt


def _target(config: ImagesConfig, image: Image.Image) -> tuple[int, int]:
    """Width and height in the pool: the square, or the bucket of the nearest aspect ratio."""
    if config.size is not None:
        return config.size, config.size
    ratio = math.log(image.width / image.height)
    return min(config.buckets, key=lambda bucket: abs(ratio - math.log(bucket[0] / bucket[1])))


def _refuse_small(image: Image.Image, width: int, height: int, minimum: int | None) -> None:
    """Refuse a picture whose crop to `width` x `height` has too few pixels on its shorter side."""
    least = min(width, height) if minimum is None else minimum
    # The crop's shorter side is min(W / width, H / height) * min(width, height).
    if min(image.width * height, image.height * width) < least * max(width, height):
        raise TastemakerError(
            f"{image.width} x {image.height} pixels are too few for {width} x {height}"
            f" (minimum {least}); lower the size, or set minimum to allow enlarging"
        )
