"""What an item of a source becomes in a pool: candidates, cropped and with their verdicts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageOps

from tastemaker.config.datasets import HUMAN, TIE, Bucket, ImagesConfig, ImportConfig
from tastemaker.core.errors import TastemakerError
from tastemaker.core.reading import require_unicode
from tastemaker.core.seeding import keyed_seed
from tastemaker.datasets.captioned import Captioned
from tastemaker.datasets.comparisons import Comparison
from tastemaker.datasets.filters import Reasons, prompt_reasons, size_reason
from tastemaker.datasets.importer import Filtered, Usable
from tastemaker.storage.candidates import REAL
from tastemaker.storage.files import config_key
from tastemaker.storage.images import (
    Decoded,
    crop_box,
    encode_png,
    fit,
    pixel_hash,
    read_photograph,
    sizes_told,
)


@dataclass(frozen=True)
class Compared:
    """Turns compared images into candidates of one group, each with its verdict.

    Args:
        config: Of the import.
        reasons: Its filters of prompts.
    """

    config: ImportConfig
    reasons: Reasons

    @classmethod
    def of(cls, config: ImportConfig) -> Compared:
        """Prepare the filters that an import asks for."""
        return cls(config, prompt_reasons(config.filters, config.split))

    @property
    def scorers(self) -> tuple[str, ...]:
        """Columns of the verdicts."""
        return self.config.scorers

    def __call__(self, comparison: Comparison, number: int) -> Usable:
        """Convert a comparison.

        All its images are cropped to one shape and mirrored alike, or not at all.

        Raises:
            Filtered: An option keeps it out.
            TastemakerError: It cannot be used.
        """
        config = self.config
        prompt = kept_prompt(comparison.prompt, "prompt", self.reasons)
        for name in comparison.models:
            require_unicode(name, "the name of a model")
        scores = self._scores(comparison)
        decoded = [self._decoded(data, i) for i, data in enumerate(comparison.images)]
        images = [each.image for each in decoded]
        sizes = [image.size for image in images]
        _drop(size_reason(config.filters, sizes))
        pictures = tuple(pixel_hash(image) for image in images)
        for place, picture in enumerate(pictures):
            first = pictures.index(picture)
            if first < place:
                raise TastemakerError(f"images {first} and {place} are the same picture")
        group = config_key(comparison.where)
        shape = _shape(config.resolution, config.buckets, sizes)
        mirrored = config.random_flip and bool(keyed_seed(0, "flip", comparison.where) & 1)
        as_is = shape is None and not mirrored
        encoded = [
            data if as_is and each.as_stored else _encoded(each.image, shape, mirrored)
            for data, each in zip(comparison.images, decoded, strict=True)
        ]
        rows = tuple(
            {
                "candidate_id": f"{group}-{place}",
                "prompt_id": group,
                "prompt": prompt,
                "seed": place,
                "source": "imported",
                "source_id": comparison.where,
                "timestep": None,
                "model": model,
                "image": {"bytes": data, "path": None},
            }
            for place, (data, model) in enumerate(zip(encoded, comparison.models, strict=True))
        )
        notes = tuple(note for each in decoded for note in each.notes)
        return Usable(rows, scores, pictures, notes=notes)

    def _scores(self, comparison: Comparison) -> dict[str, tuple[float, ...]]:
        """The columns of the verdicts, or why ties of this kind are kept out."""
        if comparison.bad and self.config.both_bad == "dropped":
            raise Filtered("comparisons with both images bad (both_bad=dropped)")
        if comparison.tied and self.config.ties == "dropped":
            what = "ties" if comparison.judged else "comparisons without a verdict"
            raise Filtered(f"{what} (ties=dropped)")
        turned = self.config.reversed_labels
        human = tuple(1.0 - each if turned else each for each in comparison.verdicts)
        tie = float(comparison.tied and comparison.judged)
        return {HUMAN: human, TIE: (tie,) * len(human)}

    def _decoded(self, data: bytes, place: int) -> Decoded:
        if not data:
            raise TastemakerError(f"image {place}: it is empty")
        try:
            return read_photograph(data, self.config.max_pixels)
        except TastemakerError as error:
            raise TastemakerError(f"image {place}: {error}") from None


@dataclass(frozen=True)
class Photograph:
    """Turns captioned photographs into candidates, cropped and scaled.

    Args:
        config: Of the import.
        reasons: Its filters of captions.
    """

    config: ImagesConfig
    reasons: Reasons

    @classmethod
    def of(cls, config: ImagesConfig) -> Photograph:
        """Prepare the filters that an import asks for."""
        return cls(config, prompt_reasons(config.filters, config.split))

    def __call__(self, captioned: Captioned, number: int) -> Usable:
        """Convert a photograph.

        Raises:
            Filtered: An option keeps it out.
            TastemakerError: It cannot be used.
        """
        config = self.config
        prompt = kept_prompt(captioned.caption, "caption", self.reasons)
        whole, _, notes = read_photograph(captioned.encoded(), config.max_pixels)
        image = whole if captioned.box is None else crop_box(whole, captioned.box)
        _drop(size_reason(config.filters, [image.size]))
        shape = _shape(config.resolution, config.buckets, [image.size])
        assert shape is not None  # the section asks for one
        width, height = shape
        _refuse_small(image, width, height, config.min_crop_side)
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
        return Usable((row,), pictures=(pixel_hash(image),), once=True, notes=notes)


def kept_prompt(text: str, what: str, reasons: Reasons) -> str:
    """Read a text as a prompt: stripped, something that a file can hold, and not filtered.

    Args:
        text: As the source has it.
        what: "prompt" or "caption", for messages.
        reasons: Filters.

    Returns:
        The prompt.

    Raises:
        Filtered: A filter keeps it out.
        TastemakerError: It is empty or not valid Unicode.
    """
    prompt = text.strip()
    if not prompt:
        raise TastemakerError(f"the {what} is empty")
    require_unicode(prompt, f"the {what}")
    _drop(reasons(prompt))
    return prompt


def _drop(reason: str | None) -> None:
    if reason is not None:
        raise Filtered(reason)


def _encoded(image: Image.Image, shape: Bucket | None, mirrored: bool) -> bytes:
    kept = image if shape is None else fit(image, *shape)
    return encode_png(ImageOps.mirror(kept) if mirrored else kept)


def _shape(
    size: int | None, buckets: Sequence[Bucket], sizes: Sequence[tuple[int, int]]
) -> Bucket | None:
    """Width and height in the pool: the square, or the bucket nearest to the mean aspect ratio."""
    if size is not None:
        return size, size
    if not buckets:
        return None
    ratio = sum(math.log(width / height) for width, height in sizes) / len(sizes)
    return min(buckets, key=lambda bucket: abs(ratio - math.log(bucket[0] / bucket[1])))


def _refuse_small(image: Image.Image, width: int, height: int, minimum: int | None) -> None:
    """Refuse a picture whose crop to `width` x `height` has too few pixels on its shorter side."""
    least = min(width, height) if minimum is None else minimum
    # The crop's shorter side is min(W / width, H / height) * min(width, height).
    if min(image.width * height, image.height * width) < least * max(width, height):
        raise TastemakerError(
            f"{image.width} x {image.height} pixels are too few for {width} x {height}"
            f" (minimum {least}); lower resolution, or set min_crop_side to allow enlarging"
        )
